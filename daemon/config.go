package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"rskv/engine"
	"rskv/ipc"
)

// envPrefix begins the name of every variable the daemon reads; any other
// variable that begins so is taken for a misspelt setting.
const envPrefix = "RSKV_"

// memoryShare is the default share of the machine's memory.
const memoryShare = 25 // percent

// Defaults returns the settings that hold where nothing else is said. The
// paths depend on the environment (see ipc.DefaultDir), the memory on the
// machine.
func Defaults() Config {
	c := Config{
		Preset:             presetDefault,
		Dir:                ipc.DefaultDir(),
		Socket:             ipc.DefaultSocket(),
		SocketMode:         modeDefault,
		Roles:              rolesStandard,
		AdminSocket:        adminAuto,
		IO:                 "auto",
		Memory:             memoryMin,
		PageSize:           1 << 20,
		SegmentSize:        64 << 20,
		CommitInterval:     time.Second,
		CheckpointDistance: engine.CheckpointDistanceDefault,
		CheckpointsKept:    engine.CheckpointsKeptDefault,
		LiveRatio:          engine.LiveRatioDefault,
		Limits:             ipc.DefaultLimits(),
		RequestMemory:      256 << 20,
		MaxConnections:     1024,
		MaxSessions:        engine.LedgersDefault,
		SessionExpiry:      engine.LedgerExpiryDefault,
		RequestTimeout:     30 * time.Second,
		AnswerTimeout:      time.Minute,
		DrainTimeout:       10 * time.Second,
		BackupTimeout:      time.Minute,
		MaxWatches:         64,
		WatchTimeout:       10 * time.Second,
		SlowlogSize:        128,
		ScrubRate:          engine.ScrubRateDefault,
		Sandbox:            sandboxAuto,
		LogLevel:           slog.LevelInfo,
		LogFormat:          "auto",
	}
	if total, err := memoryTotal(); err == nil {
		c.Memory = max(memoryMin, wholeMiB(total/100*memoryShare))
	}
	return c
}

// flagText is a flag before it is a setting: its text. Whether it was given at
// all is what the flag set knows.
type flagText struct {
	text string
	typ  string
}

func (f *flagText) Set(s string) error { f.text = s; return nil }
func (f *flagText) String() string     { return f.text }
func (f *flagText) Type() string       { return f.typ }

// AddFlags adds one flag for each setting, with its default in the help.
func AddFlags(flags *pflag.FlagSet) {
	defaults := Defaults()
	for _, s := range settings {
		v := s.bind(&defaults)
		doc := s.doc
		if !s.flagOnly() {
			doc += " (" + variable(s.name) + ")"
		}
		text := &flagText{text: v.String(), typ: v.Type()}
		flag := flags.VarPF(text, flagName(s.name), "", doc)
		if _, ok := v.(switchValue); ok {
			flag.NoOptDefVal = "on"
		}
	}
	flags.SortFlags = false
}

func flagName(name string) string { return strings.ReplaceAll(name, "_", "-") }
func variable(name string) string { return envPrefix + strings.ToUpper(name) }

// Load puts a Config together: flags (from AddFlags, parsed; may be nil) over
// the variables in environ ("NAME=value") over the file over the defaults. The
// error names every problem there is, one a line, each with the flag, the
// variable or the line of the file it stands in.
func Load(flags *pflag.FlagSet, environ []string) (Config, error) {
	l := loader{config: Defaults()}
	l.config.origin = map[string]string{}
	env := rskvVariables(environ)
	l.config.ConfigFile = env[variable("config")]
	if f := changed(flags, "config"); f != nil {
		l.config.ConfigFile = f.Value.String()
	}
	file := l.read(l.config.ConfigFile)
	l.choosePreset(flags, env, file)
	l.file(file)
	l.environment(env)
	l.flags(flags)
	if len(l.problems) == 0 {
		l.add(l.config.Validate())
	}
	return l.config, errors.Join(l.problems...)
}

// loader collects settings from one source after the other, and what is wrong
// with them.
type loader struct {
	config   Config
	problems []error
}

func (l *loader) add(err error) {
	if err != nil {
		l.problems = append(l.problems, err)
	}
}

// set gives one setting the value found at a place.
func (l *loader) set(s setting, text, place string) {
	if err := s.bind(&l.config).Set(text); err != nil {
		l.add(fmt.Errorf("%s: %s", place, oneLine(err.Error())))
		return
	}
	l.config.origin[s.name] = place
}

// settingsFile is a TOML file as it was read. The zero value holds nothing.
type settingsFile struct {
	path    string
	text    []byte
	content map[string]any
}

// read reads the file at path; "": none.
func (l *loader) read(path string) settingsFile {
	f := settingsFile{path: path}
	if path == "" {
		return f
	}
	var err error
	if f.text, err = os.ReadFile(path); err != nil {
		l.add(fmt.Errorf("read settings: %w", err))
		return settingsFile{}
	}
	if _, err := toml.Decode(string(f.text), &f.content); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			err = fmt.Errorf("%s:%d: %s", path, syntax.Position.Line, oneLine(syntax.Message))
		}
		l.add(err)
		return settingsFile{}
	}
	return f
}

// choosePreset puts the defaults of the preset in place, wherever it is asked
// for: they come before everything else that is.
func (l *loader) choosePreset(flags *pflag.FlagSet, env map[string]string, file settingsFile) {
	const name = "preset"
	if f := changed(flags, flagName(name)); f != nil {
		l.preset(f.Value.String())
	} else if text, ok := env[variable(name)]; ok {
		l.preset(text)
	} else if text, ok := file.content[name].(string); ok {
		l.preset(text)
	}
}

// file takes the settings of a file: keys at the top level, no tables.
func (l *loader) file(f settingsFile) {
	path, data, content := f.path, f.text, f.content
	keys := slices.Collect(maps.Keys(content))
	slices.SortFunc(keys, func(a, b string) int { return lineOf(data, a) - lineOf(data, b) })
	for _, key := range keys {
		place := fmt.Sprintf("%s:%d: %s", path, lineOf(data, key), oneLine(key))
		s, ok := settingByName(key)
		if !ok || s.name == "config" || s.flagOnly() {
			l.add(fmt.Errorf("%s: no such setting", place))
			continue
		}
		text, ok := scalar(content[key])
		if list, isList := s.bind(&l.config).(listValue); !ok && isList {
			if text, ok = joined(content[key], list.separator()); !ok {
				l.add(fmt.Errorf("%s: must be a string or a list of strings", place))
				continue
			}
		}
		if !ok {
			l.add(fmt.Errorf("%s: must be a string, a number, true or false", place))
			continue
		}
		l.set(s, text, place)
	}
}

// scalar writes a TOML value the way a flag would have it.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// oneLine returns a text that stands in a line: as it is, or in quotes if it would not
// be seen as it is.
func oneLine(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// joined writes a TOML array of strings the way a flag would have it.
func joined(v any, separator string) (string, bool) {
	list, ok := v.([]any)
	if !ok {
		return "", false
	}
	texts := make([]string, len(list))
	for i := range list {
		if texts[i], ok = list[i].(string); !ok {
			return "", false
		}
	}
	return strings.Join(texts, separator), true
}

// lineOf finds the line of a top-level key, or of the table of that name; the
// TOML library tells lines for syntax errors only. 1 when it is not to be seen.
func lineOf(data []byte, key string) int {
	at := regexp.MustCompile(`(?m)^[ \t]*\[*[ \t]*["']?` + regexp.QuoteMeta(key) + `["']?[ \t]*[=.\]]`).FindIndex(data)
	if at == nil {
		return 1
	}
	return 1 + strings.Count(string(data[:at[0]]), "\n")
}

// rskvVariables picks the variables that begin with the prefix. An empty one
// counts as not given: that is how a unit file or a shell takes one back.
func rskvVariables(environ []string) map[string]string {
	found := map[string]string{}
	for _, e := range environ {
		name, text, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, envPrefix) && text != "" {
			found[name] = text
		}
	}
	return found
}

func (l *loader) environment(env map[string]string) {
	for _, s := range settings {
		name := variable(s.name)
		if text, ok := env[name]; ok && !s.flagOnly() {
			l.set(s, text, name)
			delete(env, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		l.add(fmt.Errorf("%s: no such setting", name))
	}
}

func (l *loader) flags(flags *pflag.FlagSet) {
	for _, s := range settings {
		if f := changed(flags, flagName(s.name)); f != nil {
			l.set(s, f.Value.String(), "--"+f.Name)
		}
	}
}

// changed returns the flag of that name if it was given.
func changed(flags *pflag.FlagSet, name string) *pflag.Flag {
	if flags == nil {
		return nil
	}
	if f := flags.Lookup(name); f != nil && f.Changed {
		return f
	}
	return nil
}

// Validate reports everything that is wrong between settings; that each one is
// in its range was checked when it was set.
func (c Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, s := range settings {
		v := s.bind(&c)
		if err := v.Set(v.String()); err != nil {
			bad("%s: %w", s.name, err)
		}
	}
	if c.PageSize&(c.PageSize-1) != 0 {
		bad("page_size: %s is not a power of two", formatSize(int64(c.PageSize)))
	}
	if c.SegmentSize&(c.SegmentSize-1) != 0 {
		bad("segment_size: %s is not a power of two", formatSize(c.SegmentSize))
	}
	if int64(c.PageSize) > c.SegmentSize {
		bad("page_size: %s does not fit a segment of %s (segment_size)", formatSize(int64(c.PageSize)), formatSize(c.SegmentSize))
	}
	if least := diskSegments * c.SegmentSize; c.Disk != 0 && c.Disk < least {
		bad("disk: %s has no room for %d segments of %s (segment_size)", formatSize(c.Disk), diskSegments, formatSize(c.SegmentSize))
	}
	// A put must be able to carry the longest key and value, and a get to bring it back.
	if need := int64(c.Limits.Key) + int64(c.Limits.Value) + frameRoom; need > int64(c.Limits.Request) {
		bad("max_request: %s has no room for a put of the longest key and value, %s", formatSize(int64(c.Limits.Request)), formatSize(need))
	}
	if need := int64(c.Limits.Value) + frameRoom; need > int64(c.Limits.Answer) {
		bad("max_answer: %s has no room for a get of the longest value, %s", formatSize(int64(c.Limits.Answer)), formatSize(need))
	}
	if c.RequestMemory < int64(c.Limits.Request) {
		bad("request_memory: %s is less than one request may take, %s (max_request)", formatSize(c.RequestMemory), formatSize(int64(c.Limits.Request)))
	}
	for i, d := range c.doors() {
		setting := "socket"
		if i > 0 {
			setting = "more_sockets"
		}
		if n := len(d.path); n > ipc.MaxSocketPath {
			bad("%s: %s is %d bytes long, a socket's path can have %d", setting, oneLine(d.path), n, ipc.MaxSocketPath)
		}
		if i > 0 && (d.path == c.adminPath() || slices.ContainsFunc(c.doors()[:i], func(o door) bool { return o.path == d.path })) {
			bad("more_sockets: %s is the path of another socket", oneLine(d.path))
		}
	}
	if n := len(c.adminPath()); n > ipc.MaxSocketPath {
		bad("admin_socket: %s is %d bytes long, a socket's path can have %d", oneLine(c.AdminSocket), n, ipc.MaxSocketPath)
	}
	if c.adminPath() == c.Socket {
		bad("admin_socket: %s is the path of the data socket", oneLine(c.AdminSocket))
	}
	return errors.Join(problems...)
}

// frameRoom is more than everything in a message that is neither key nor
// value: headers, id, method, options.
const frameRoom = 512

// Setting is one setting in force, as `rskvd config dump` and the method
// `config` show it.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // where it was given: a flag, a variable, file:line; "default"
	Doc    string `json:"doc"`
	Live   bool   `json:"live"` // can be changed while the daemon runs
}

// All lists every setting in the order of the table.
func (c Config) All() []Setting {
	all := make([]Setting, 0, len(settings))
	for _, s := range settings {
		origin := c.origin[s.name]
		if origin == "" {
			origin = "default"
		}
		all = append(all, Setting{s.name, s.bind(&c).String(), origin, s.doc, s.live})
	}
	return all
}

// WriteTOML writes the settings as a file that Load reads, each with its
// meaning and where it came from.
func (c Config) WriteTOML(w io.Writer) error {
	for _, s := range c.All() {
		if row, _ := settingByName(s.Name); s.Name == "config" || row.flagOnly() {
			continue
		}
		if _, err := fmt.Fprintf(w, "# %s (%s)\n%s = %q\n", s.Doc, s.Origin, s.Name, s.Value); err != nil {
			return err
		}
	}
	return nil
}

// with returns the settings after changing some that can be changed while the
// daemon runs. The error names every one that cannot, or not so.
func (c Config) with(changes map[string]string) (Config, error) {
	l := loader{config: c}
	if l.config.origin = maps.Clone(c.origin); l.config.origin == nil {
		l.config.origin = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		s, ok := settingByName(name)
		switch {
		case !ok:
			l.add(fmt.Errorf("%s: no such setting", name))
		case !s.live:
			l.add(fmt.Errorf("%s: cannot be changed while the daemon runs", name))
		default:
			if err := s.bind(&l.config).Set(changes[name]); err != nil {
				l.add(fmt.Errorf("%s: %w", name, err))
			}
			l.config.origin[name] = "config method"
		}
	}
	if err := errors.Join(l.problems...); err != nil {
		return c, err
	}
	return l.config, l.config.Validate()
}
