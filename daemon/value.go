package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is one field of a Config seen as text. Set refuses what is out of
// range, so that a Config never holds a value its setting does not allow.
type value interface {
	Set(text string) error
	String() string // what Set would take to give the same again
	Type() string   // for help
}

// listValue is a value that a file may also say as an array of strings.
type listValue interface{ separator() string }

// textValue is a string, not empty unless optional.
type textValue struct {
	p        *string
	optional bool
}

func (v textValue) Set(s string) error {
	if s == "" && !v.optional {
		return errors.New("must not be empty")
	}
	if strings.ContainsRune(s, 0) {
		return errors.New("must not contain a zero byte")
	}
	*v.p = s
	return nil
}
func (v textValue) String() string { return *v.p }
func (v textValue) Type() string   { return "path" }

// choiceValue is one of a few words.
type choiceValue struct {
	p     *string
	words []string
}

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(v.words, ", "))
	}
	*v.p = s
	return nil
}
func (v choiceValue) String() string { return *v.p }
func (v choiceValue) Type() string   { return strings.Join(v.words, "|") }

// switchValue is on or off.
type switchValue struct{ p *bool }

func (v switchValue) Set(s string) error {
	switch strings.TrimSpace(s) {
	case "on", "true":
		*v.p = true
	case "off", "false":
		*v.p = false
	default:
		return fmt.Errorf("%q is not one of on, off", s)
	}
	return nil
}
func (v switchValue) String() string {
	if *v.p {
		return "on"
	}
	return "off"
}
func (v switchValue) Type() string { return "on|off" }

// sizeValue is a number of bytes.
type sizeValue[T int | int64] struct {
	p        *T
	min, max int64
}

func (v sizeValue[T]) Set(s string) error {
	n, err := parseSize(s, memoryTotal)
	if err != nil {
		return err
	}
	if n < v.min || n > v.max {
		return fmt.Errorf("%s is not between %s and %s", strings.TrimSpace(s), formatSize(v.min), formatSize(v.max))
	}
	*v.p = T(n)
	return nil
}
func (v sizeValue[T]) String() string { return formatSize(int64(*v.p)) }
func (v sizeValue[T]) Type() string   { return "size" }

// ratioValue is a share, 0 to 1.
type ratioValue struct{ p *float64 }

func (v ratioValue) Set(s string) error {
	x, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	if !(x >= 0 && x <= 1) {
		return fmt.Errorf("%s is not between 0 and 1", strings.TrimSpace(s))
	}
	*v.p = x
	return nil
}
func (v ratioValue) String() string { return strconv.FormatFloat(*v.p, 'g', -1, 64) }
func (v ratioValue) Type() string   { return "share" }

// countValue is a whole number.
type countValue struct {
	p        *int
	min, max int
}

func (v countValue) Set(s string) error {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	if n < v.min || n > v.max {
		return fmt.Errorf("%d is not between %d and %d", n, v.min, v.max)
	}
	*v.p = n
	return nil
}
func (v countValue) String() string { return strconv.Itoa(*v.p) }
func (v countValue) Type() string   { return "number" }

// spanValue is a length of time; zero stands for "never" where a setting says so.
type spanValue struct {
	p        *time.Duration
	min, max time.Duration
}

func (v spanValue) Set(s string) error {
	d, err := time.ParseDuration(strings.TrimSpace(s))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 500ms, 10s, 2m", s)
	}
	if d != 0 && d < v.min || d < 0 || d > v.max {
		return fmt.Errorf("%s is neither 0 nor between %s and %s", strings.TrimSpace(s), v.min, v.max)
	}
	*v.p = d
	return nil
}
func (v spanValue) String() string { return v.p.String() }
func (v spanValue) Type() string   { return "duration" }

// modeValue is a file mode in octal.
type modeValue struct{ p *fs.FileMode }

func (v modeValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a file mode: write it in octal, 0660", s)
	}
	*v.p = fs.FileMode(n)
	return nil
}
func (v modeValue) String() string { return fmt.Sprintf("%04o", uint32(*v.p)) }
func (v modeValue) Type() string   { return "mode" }

// levelValue is how much is logged.
type levelValue struct{ p *slog.Level }

func (v levelValue) Set(s string) error {
	i := slices.Index(levelNames, s)
	if i < 0 {
		return fmt.Errorf("%q is not one of %s", s, strings.Join(levelNames, ", "))
	}
	*v.p = levels[i]
	return nil
}
func (v levelValue) String() string { return levelNames[slices.Index(levels, *v.p)] }
func (v levelValue) Type() string   { return strings.Join(levelNames, "|") }

var (
	levelNames = []string{"debug", "info", "warn", "error"}
	levels     = []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
)
