package fio

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// sizeUnits are the suffixes of sizes. fio counts k as 1024 for the sake of old
// job files, and therefore kib as 1000.
var sizeUnits = map[string]uint64{
	"": 1, "b": 1,
	"k": 1 << 10, "kb": 1 << 10, "ki": 1 << 10, "kib": 1e3,
	"m": 1 << 20, "mb": 1 << 20, "mi": 1 << 20, "mib": 1e6,
	"g": 1 << 30, "gb": 1 << 30, "gi": 1 << 30, "gib": 1e9,
	"t": 1 << 40, "tb": 1 << 40, "ti": 1 << 40, "tib": 1e12,
	"p": 1 << 50, "pb": 1 << 50, "pi": 1 << 50, "pib": 1e15,
}

// parseSize reads a number of bytes, or of anything else, with a suffix.
func parseSize(s string) (int64, error) {
	digits, suffix := splitNumber(s)
	n, err := strconv.ParseUint(digits, 0, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is no size", s)
	}
	unit, ok := sizeUnits[strings.ToLower(suffix)]
	if !ok {
		return 0, fmt.Errorf("%q: there is no suffix %q", s, suffix)
	}
	high, low := bits.Mul64(n, unit)
	if high != 0 || low > math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return int64(low), nil
}

var timeUnits = map[string]time.Duration{
	"": time.Second, "d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second,
	"ms": time.Millisecond, "us": time.Microsecond, "msec": time.Millisecond, "usec": time.Microsecond,
	"sec": time.Second, "min": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
}

// parseTime reads a time; without a suffix it counts seconds.
func parseTime(s string) (time.Duration, error) {
	digits, suffix := splitNumber(s)
	n, err := strconv.ParseInt(digits, 0, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no time", s)
	}
	unit, ok := timeUnits[strings.ToLower(suffix)]
	if !ok {
		return 0, fmt.Errorf("%q: there is no suffix %q", s, suffix)
	}
	if n > math.MaxInt64/int64(unit) {
		return 0, fmt.Errorf("%q is too long", s)
	}
	return time.Duration(n) * unit, nil
}

// splitNumber parts a number from its suffix. Hexadecimal digits are digits
// behind 0x only, where no suffix begins with one.
func splitNumber(s string) (digits, suffix string) {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		end := 2 + strings.IndexFunc(s[2:], func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
		if end < 2 {
			return s, ""
		}
		return s[:end], s[end:]
	}
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

// parseInt reads a number between least and most.
func parseInt(s string, least, most int) (int, error) {
	n, err := parseSize(s)
	if err != nil || n < int64(least) || n > int64(most) {
		return 0, fmt.Errorf("%q is no number from %d to %d", s, least, most)
	}
	return int(n), nil
}

// parseBool reads 0 or 1.
func parseBool(s string) (bool, error) {
	switch s {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, fmt.Errorf("%q is neither 0 nor 1", s)
}

// parsePercentiles reads a list such as 50:99:99.9, in ascending order.
func parsePercentiles(s string) ([]float64, error) {
	var list []float64
	for part := range strings.SplitSeq(s, ":") {
		p, err := strconv.ParseFloat(part, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return nil, fmt.Errorf("%q is no percentile", part)
		}
		if len(list) > 0 && p <= list[len(list)-1] {
			return nil, fmt.Errorf("%q: percentiles must ascend", s)
		}
		list = append(list, p)
	}
	if len(list) > percentilesMax {
		return nil, fmt.Errorf("%q: more than %d percentiles", s, percentilesMax)
	}
	return list, nil
}
