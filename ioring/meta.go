package ioring

import "fmt"

// metaNameMax bounds the name of a metadata file, in bytes: no file system takes
// fewer than 255 with the suffixes a device adds.
const metaNameMax = 64

// CheckMetaName reports what is wrong with the name of a metadata file: it has 1
// to 64 of the characters a-z, A-Z, 0-9, '-', '_' and '.', and does not begin
// with '.'. Every Device refuses other names with this error.
func CheckMetaName(name string) error {
	bad := len(name) == 0 || len(name) > metaNameMax || name[0] == '.'
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			bad = true
		}
	}
	if bad {
		return fmt.Errorf("bad name %q of a metadata file: want 1 to %d of a-z A-Z 0-9 - _ . and no leading dot", name, metaNameMax)
	}
	return nil
}
