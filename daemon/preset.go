package daemon

// presetDefault is the preset that changes nothing.
const presetDefault = "default"

// preset is a set of defaults for one kind of use. What is said elsewhere counts
// over it.
type preset struct {
	name, doc string
	values    [][2]string // setting, value
}

// presets are all there are; the first is the one without a word.
var presets = []preset{
	{presetDefault, "a quarter of the memory, for a machine that does other things as well", nil},
	{"high-performance", "for a machine, or a control group, that is there for the store: more memory, fewer checkpoints, more clients", [][2]string{
		{"memory", "50%"}, {"segment_size", "256MiB"}, {"checkpoint_distance", "4GiB"},
		{"request_memory", "1GiB"}, {"max_connections", "8192"},
	}},
	{"low-memory", "for a small machine or a sidecar, with values of up to 1 MiB", [][2]string{
		{"memory", "32MiB"}, {"page_size", "256KiB"}, {"segment_size", "16MiB"}, {"checkpoint_distance", "64MiB"},
		{"max_value", "1MiB"}, {"max_request", "2MiB"}, {"max_answer", "2MiB"}, {"request_memory", "16MiB"},
		{"max_queued", "1MiB"}, {"max_queued_all", "16MiB"}, {"max_connections", "128"}, {"max_sessions", "256"},
	}},
}

// presetNames lists them.
func presetNames() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

// preset puts the defaults of a preset in place. A name there is not is reported
// when the setting itself is set.
func (l *loader) preset(name string) {
	for _, p := range presets {
		if p.name != name {
			continue
		}
		for _, v := range p.values {
			s, _ := settingByName(v[0])
			l.set(s, v[1], "preset "+name)
		}
	}
}
