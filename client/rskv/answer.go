package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// field is one member of a JSON answer.
type field struct {
	name  string
	value any
}

// answer prints fields as one line of JSON, or text if JSON was not asked for.
// An empty text prints nothing.
func (t *tool) answer(text string, fields ...field) error {
	if !t.json {
		if text == "" {
			return nil
		}
		_, err := fmt.Fprintln(t.stdout, text)
		return err
	}
	line := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			line = append(line, ',')
		}
		name, value := f.name, f.value
		if b, ok := value.([]byte); ok {
			plain, encoded := jsonBytes(b)
			if value = plain; plain == nil {
				name, value = name+"_base64", encoded
			}
		}
		text, err := encodeJSON(value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		line = append(append(append(line, '"'), name...), '"', ':')
		line = append(line, text...)
	}
	_, err := t.stdout.Write(append(line, '}', '\n'))
	return err
}

// encodeJSON encodes v without escaping <, > and &.
func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// keyField is a key in a JSON answer.
func (t *tool) keyField(key []byte) field {
	if t.hex {
		return field{"key_hex", hex.EncodeToString(key)}
	}
	return field{"key", key}
}

// printMap prints names and values, sorted; a map within goes by dotted names.
func (t *tool) printMap(m map[string]any) error {
	if t.json {
		line, err := encodeJSON(jsonValue(m))
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		_, err = t.stdout.Write(append(line, '\n'))
		return err
	}
	var text strings.Builder
	flatten(&text, "", m)
	_, err := fmt.Fprint(t.stdout, text.String())
	return err
}

// flatten writes a line "name value" for everything in m.
func flatten(out *strings.Builder, above string, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch v := m[name].(type) {
		case map[string]any:
			flatten(out, above+name+".", v)
		case []byte:
			fmt.Fprintf(out, "%s%s %q\n", above, name, v)
		default:
			fmt.Fprintf(out, "%s%s %v\n", above, name, v)
		}
	}
}

// jsonValue makes text of byte strings, which JSON has no type for.
func jsonValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = jsonValue(v[name])
		}
	case []any:
		for i := range v {
			v[i] = jsonValue(v[i])
		}
	case []byte:
		return strings.ToValidUTF8(string(v), "\ufffd")
	}
	return v
}
