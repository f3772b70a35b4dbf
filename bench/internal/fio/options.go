package fio

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rskv/engine"
)

// once are switches of a section that are not inherited.
type once struct{ stonewall, newGroup bool }

// option sets what a value means. For a bare name the value is "1".
type option func(j *Job, o *once, value string) error

// options are all that is understood, by fio's names.
var options map[string]option

func init() {
	options = map[string]option{
		"ioengine": setEngine, "rw": setRW, "readwrite": setRW,
		"bs": setBlock, "blocksize": setBlock, "bsrange": setBlockRange, "blocksize_range": setBlockRange,
		"iodepth":             number(1, depthMax, func(j *Job, n int) { j.Depth = n }),
		"numjobs":             number(1, jobsMax, func(j *Job, n int) { j.NumJobs = n }),
		"size":                size(func(j *Job, n int64) { j.Size = n }),
		"filesize":            size(func(j *Job, n int64) { j.Size = n }),
		"offset":              size(func(j *Job, n int64) { j.Offset = n }),
		"io_size":             size(func(j *Job, n int64) { j.IOSize = n }),
		"loops":               number(1, 1<<20, func(j *Job, n int) { j.Loops = n }),
		"runtime":             duration(func(j *Job, d time.Duration) { j.Runtime = d }),
		"timeout":             duration(func(j *Job, d time.Duration) { j.Runtime = d }), // what it was called before
		"name":                setName,
		"ramp_time":           duration(func(j *Job, d time.Duration) { j.Ramp = d }),
		"time_based":          truth(func(j *Job, _ *once, b bool) { j.TimeBased = b }),
		"direct":              truth(func(j *Job, _ *once, b bool) { j.Direct = b }),
		"buffered":            truth(func(j *Job, _ *once, b bool) { j.Direct = !b }),
		"fsync":               number(0, 1<<30, func(j *Job, n int) { j.Fsync = n }),
		"fdatasync":           number(0, 1<<30, func(j *Job, n int) { j.Fsync = n }),
		"end_fsync":           truth(func(j *Job, _ *once, b bool) { j.EndFsync = b }),
		"overwrite":           truth(func(j *Job, _ *once, b bool) { j.Overwrite = b }),
		"norandommap":         truth(func(j *Job, _ *once, b bool) { j.NoRandomMap = b }),
		"randrepeat":          truth(func(j *Job, _ *once, b bool) { j.Repeat = b }),
		"rwmixread":           number(0, 100, func(j *Job, n int) { j.ReadShare = n }),
		"rwmixwrite":          number(0, 100, func(j *Job, n int) { j.ReadShare = 100 - n }),
		"rate_iops":           setRate,
		"percentile_list":     setPercentiles,
		"group_reporting":     truth(func(j *Job, _ *once, b bool) { j.Merged = b }),
		"stonewall":           truth(func(_ *Job, o *once, b bool) { o.stonewall = b }),
		"wait_for_previous":   truth(func(_ *Job, o *once, b bool) { o.stonewall = b }),
		"new_group":           truth(func(_ *Job, o *once, b bool) { o.newGroup = b }),
		"filename":            setFile,
		"directory":           func(j *Job, _ *once, v string) error { j.Directory = v; return nil },
		"random_distribution": setDistribution,

		// What changes nothing here, because it is so anyhow: a job is a
		// goroutine, and everything written is removed.
		"description": func(*Job, *once, string) error { return nil },
		"thread":      truth(func(*Job, *once, bool) {}),
		"unlink":      truth(func(*Job, *once, bool) {}),

		"rskv_memory": size(func(j *Job, n int64) { j.Memory = n }),
		"rskv_commit": setCommit,
	}
}

// apply sets everything that a section says. o is nil for [global], where what
// is not inherited has no meaning.
func apply(j *Job, s *Section, o *once) error {
	for _, set := range s.Settings {
		f, ok := options[set.Name]
		if !ok {
			return fmt.Errorf("%s: unknown option %q", set.Place, set.Name)
		}
		to := o
		if to == nil {
			to = &once{}
		}
		value := set.Value
		if set.Bare {
			value = "1"
		}
		if err := f(j, to, value); err != nil {
			return fmt.Errorf("%s: %s: %w", set.Place, set.Name, err)
		}
		if o == nil && *to != (once{}) {
			return fmt.Errorf("%s: %s has no meaning in [global]", set.Place, set.Name)
		}
		j.Options[set.Name] = value
	}
	return nil
}

func number(least, most int, set func(*Job, int)) option {
	return func(j *Job, _ *once, v string) error {
		n, err := parseInt(v, least, most)
		if err == nil {
			set(j, n)
		}
		return err
	}
}

func size(set func(*Job, int64)) option {
	return func(j *Job, _ *once, v string) error {
		n, err := parseSize(v)
		if err == nil {
			set(j, n)
		}
		return err
	}
}

func duration(set func(*Job, time.Duration)) option {
	return func(j *Job, _ *once, v string) error {
		d, err := parseTime(v)
		if err == nil {
			set(j, d)
		}
		return err
	}
}

func truth(set func(*Job, *once, bool)) option {
	return func(j *Job, o *once, v string) error {
		b, err := parseBool(v)
		if err == nil {
			set(j, o, b)
		}
		return err
	}
}

// engineNames are what ioengine may be. fio's own names stand for the nearest
// thing here, so that a job file need not be changed: its asynchronous engines
// for the device layer, its synchronous ones for the same through pread/pwrite.
var engineNames = map[string]Engine{
	string(Uring): Uring, string(Sync): Sync, string(Store): Store, string(Socket): Socket, string(Auto): Auto,
	"io_uring": Auto, "libaio": Auto, "posixaio": Auto,
	"sync": Sync, "psync": Sync, "vsync": Sync, "pvsync": Sync, "pvsync2": Sync,
}

// ParseEngine finds the engine with a name, fio's own included.
func ParseEngine(name string) (Engine, error) {
	e, ok := engineNames[name]
	if !ok {
		return "", fmt.Errorf("unknown ioengine %q (there are rskv-uring, rskv-sync, rskv-engine, rskv-socket)", name)
	}
	return e, nil
}

func setEngine(j *Job, _ *once, v string) (err error) {
	j.Engine, err = ParseEngine(v)
	return err
}

// setName names a job other than its section. In [global] it names nothing, as with fio.
func setName(j *Job, _ *once, v string) error {
	j.Name = v
	return nil
}

func setRW(j *Job, _ *once, v string) error {
	kind, random := strings.CutPrefix(v, "rand")
	switch kind {
	case "read":
		j.Read, j.Write = true, false
	case "write":
		j.Read, j.Write = false, true
	case "rw", "readwrite":
		j.Read, j.Write = true, true
	default:
		return fmt.Errorf("%q is none of read, write, rw, randread, randwrite, randrw", v)
	}
	j.Random = random
	return nil
}

// eachDirection reads "both" or "read,write".
func eachDirection(v string, set func(direction int, part string) error) error {
	parts := strings.Split(v, ",")
	if len(parts) > 2 {
		return fmt.Errorf("%q: want one value, or one for reads and one for writes", v)
	}
	for d := range 2 {
		if err := set(d, parts[min(d, len(parts)-1)]); err != nil {
			return err
		}
	}
	return nil
}

func setBlock(j *Job, _ *once, v string) error {
	return eachDirection(v, func(d int, part string) error {
		n, err := parseSize(part)
		j.Block[d] = Range{n, n}
		return err
	})
}

func setBlockRange(j *Job, _ *once, v string) error {
	return eachDirection(v, func(d int, part string) error {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			return fmt.Errorf("%q is no range", part)
		}
		least, err := parseSize(from)
		if err != nil {
			return err
		}
		most, err := parseSize(to)
		j.Block[d] = Range{least, most}
		return err
	})
}

func setRate(j *Job, _ *once, v string) error {
	return eachDirection(v, func(d int, part string) (err error) {
		j.Rate[d], err = parseInt(part, 0, 1<<30)
		return err
	})
}

func setPercentiles(j *Job, _ *once, v string) (err error) {
	j.Percentiles, err = parsePercentiles(v)
	return err
}

// setFile takes a name without a directory: a job file must not make this
// program write over somebody's file or disk.
func setFile(j *Job, _ *once, v string) error {
	if strings.Contains(v, ":") || filepath.Base(v) != v || v == "." || v == ".." {
		return fmt.Errorf("%q is not the name of one file; its place is said by directory", v)
	}
	j.File = v
	return nil
}

func setDistribution(j *Job, _ *once, v string) error {
	kind, rest, _ := strings.Cut(v, ":")
	switch kind {
	case "random", "uniform":
		if rest != "" {
			return fmt.Errorf("%q: %s has no parameter", v, kind)
		}
		j.Dist = Distribution{Kind: "random"}
		return nil
	case "zipf", "pareto":
	default:
		return fmt.Errorf("%q is none of random, zipf:theta, pareto:power", v)
	}
	// The defaults are fio's.
	theta := map[string]float64{"zipf": 1.1, "pareto": 0.2}[kind]
	if rest != "" {
		var err error
		if theta, err = strconv.ParseFloat(rest, 64); err != nil {
			return fmt.Errorf("%q is no number", rest)
		}
	}
	if kind == "zipf" && !(theta > 0 && theta <= 100 && theta != 1) || kind == "pareto" && !(theta > 0 && theta < 1) {
		return fmt.Errorf("%q: zipf needs a theta above 0 that is not 1, pareto a power between 0 and 1", v)
	}
	j.Dist = Distribution{kind, theta}
	return nil
}

func setCommit(j *Job, _ *once, v string) error {
	if v == "never" {
		j.Commit = -1
		return nil
	}
	d, err := parseTime(v)
	switch {
	case err != nil:
		return err
	case d == 0:
		d = engine.CommitIntervalDefault
	}
	j.Commit = d
	return nil
}
