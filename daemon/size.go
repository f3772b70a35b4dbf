package daemon

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are the units a size may be written in, largest first. Powers of
// 1024 only: a store that is 7 % smaller than it says helps nobody.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1},
}

// errSize is what a size looks like.
var errSize = errors.New("not a size: write bytes, KiB, MiB, GiB or TiB (64MiB), or a share of the memory (25%)")

// parseSize returns the bytes text stands for: a whole number with or without
// a unit, or a percentage of what total answers.
func parseSize(text string, total func() (int64, error)) (int64, error) {
	s := strings.TrimSpace(text)
	if share, ok := strings.CutSuffix(s, "%"); ok {
		return parseShare(strings.TrimSpace(share), total)
	}
	unit := int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errSize
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%s is beyond what a size can hold", text)
	}
	return n * unit, nil
}

// parseShare returns share percent of what total answers.
func parseShare(share string, total func() (int64, error)) (int64, error) {
	percent, err := strconv.ParseFloat(share, 64)
	if err != nil {
		return 0, errSize
	}
	if !(percent > 0 && percent <= 100) {
		return 0, fmt.Errorf("%s%% is not between 0%% and 100%%", share)
	}
	all, err := total()
	if err != nil {
		return 0, err
	}
	return wholeMiB(int64(float64(all) * percent / 100)), nil
}

// wholeMiB rounds down to what people can read; below 1 MiB it leaves n alone.
func wholeMiB(n int64) int64 {
	if n < 1<<20 {
		return n
	}
	return n &^ (1<<20 - 1)
}

// formatSize writes n so that parseSize gives n again.
func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.bytes && n%u.bytes == 0 {
			if u.bytes == 1 {
				break
			}
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
