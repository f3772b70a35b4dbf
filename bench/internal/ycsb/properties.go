// Package ycsb runs the workloads of the Yahoo! Cloud Serving Benchmark (Cooper et
// al., SoCC 2010) by its own property names.
//
//	A  50 % reads, 50 % updates, zipfian      D  95 % reads, 5 % inserts, latest
//	B  95 % reads,  5 % updates, zipfian      E  95 % scans, 5 % inserts, zipfian
//	C  reads, zipfian                         F  50 % reads, 50 % read-modify-write
//
//	properties ──Parse──> Workload ──NewSpace(load)──> Space ──Run──> Result
//
// What differs from YCSB, because a key-value store differs from a table:
//   - a record is one value of fieldcount x fieldlength bytes. An update of one
//     field (writeallfields=false, the default) reads the value and puts it back,
//     as YCSB's bindings for such stores do; with writeallfields=true it puts.
//   - rskv has no order of keys. A scan of n records is n gets of the records
//     inserted one after the other, in one batch where the store has batches.
//   - every value read is checked: it says which record it is.
//   - with target, operations have an intended start, and latency counts from
//     there (no coordinated omission); the time from the actual start is kept
//     beside it.
//
// properties.go reads properties, keys.go chooses records, run.go is the loop.
package ycsb

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// Workload is what is asked of a store. Shares need not add up to 1.
type Workload struct {
	Name string // of the file or the letter

	Records    uint64 // loaded before
	Operations uint64 // 0: until Time is over
	Time       time.Duration
	Threads    int
	Target     float64 // operations a second of all threads; 0: as fast as they can

	FieldCount, FieldLength int
	WriteAll                bool
	Read, Update, Insert    float64
	Scan, ReadModifyWrite   float64
	Distribution            string // uniform, zipfian, latest, hotspot, sequential
	HotData, HotOperations  float64
	ScanLeast, ScanMost     int
	ScanZipf                bool
	Hashed                  bool // insertorder
	Batch                   int  // rskv.batch: operations handed over together
}

const (
	// threadsMax bounds the goroutines of a run.
	threadsMax = 1 << 16
	// valueMax is the largest record in bytes.
	valueMax = 1 << 20
	// scanMax bounds what one scan reads.
	scanMax = 1 << 16
	// batchMax bounds rskv.batch.
	batchMax = 1 << 16
)

// Presets are the core workloads A to F.
var presets = map[string]string{
	"a": "readproportion=0.5\nupdateproportion=0.5\nrequestdistribution=zipfian\n",
	"b": "readproportion=0.95\nupdateproportion=0.05\nrequestdistribution=zipfian\n",
	"c": "readproportion=1\nupdateproportion=0\nrequestdistribution=zipfian\n",
	"d": "readproportion=0.95\nupdateproportion=0\ninsertproportion=0.05\nrequestdistribution=latest\n",
	"e": "readproportion=0\nupdateproportion=0\nscanproportion=0.95\ninsertproportion=0.05\nmaxscanlength=100\nscanlengthdistribution=uniform\nrequestdistribution=zipfian\n",
	"f": "readproportion=0.5\nupdateproportion=0\nreadmodifywriteproportion=0.5\nrequestdistribution=zipfian\n",
}

// defaults are YCSB's, but for the number of records, which there is 1000: that
// fits into the processor's cache and measures nothing.
func defaults() Workload {
	return Workload{
		Records: 100_000, Threads: 1, FieldCount: 10, FieldLength: 100, Read: 0.95, Update: 0.05, Distribution: "uniform",
		HotData: 0.2, HotOperations: 0.8, ScanLeast: 1, ScanMost: 1000, Hashed: true, Batch: 1,
	}
}

// property sets what a value means.
type property func(w *Workload, value string) error

var properties = map[string]property{
	"recordcount":      whole(1, math.MaxUint32, func(w *Workload, n uint64) { w.Records = n }),
	"operationcount":   whole(0, math.MaxInt64, func(w *Workload, n uint64) { w.Operations = n }),
	"maxexecutiontime": seconds(func(w *Workload, d time.Duration) { w.Time = d }),
	"threadcount":      whole(1, threadsMax, func(w *Workload, n uint64) { w.Threads = int(n) }),
	"target":           real(1e9, func(w *Workload, x float64) { w.Target = x }),

	"fieldcount":     whole(1, valueMax, func(w *Workload, n uint64) { w.FieldCount = int(n) }),
	"fieldlength":    whole(1, valueMax, func(w *Workload, n uint64) { w.FieldLength = int(n) }),
	"writeallfields": truth(func(w *Workload, b bool) { w.WriteAll = b }),

	"readproportion":            real(1, func(w *Workload, x float64) { w.Read = x }),
	"updateproportion":          real(1, func(w *Workload, x float64) { w.Update = x }),
	"insertproportion":          real(1, func(w *Workload, x float64) { w.Insert = x }),
	"scanproportion":            real(1, func(w *Workload, x float64) { w.Scan = x }),
	"readmodifywriteproportion": real(1, func(w *Workload, x float64) { w.ReadModifyWrite = x }),

	"requestdistribution":    oneOf(func(w *Workload, v string) { w.Distribution = v }, "uniform", "zipfian", "latest", "hotspot", "sequential"),
	"hotspotdatafraction":    real(1, func(w *Workload, x float64) { w.HotData = x }),
	"hotspotopnfraction":     real(1, func(w *Workload, x float64) { w.HotOperations = x }),
	"minscanlength":          whole(1, scanMax, func(w *Workload, n uint64) { w.ScanLeast = int(n) }),
	"maxscanlength":          whole(1, scanMax, func(w *Workload, n uint64) { w.ScanMost = int(n) }),
	"insertorder":            oneOf(func(w *Workload, v string) { w.Hashed = v == "hashed" }, "hashed", "ordered"),
	"rskv.batch":             whole(1, batchMax, func(w *Workload, n uint64) { w.Batch = int(n) }),
	"scanlengthdistribution": oneOf(func(w *Workload, v string) { w.ScanZipf = v == "zipfian" }, "uniform", "zipfian"),

	// A value is read whole in any case, and there is one kind of workload.
	"readallfields": oneOf(func(*Workload, string) {}, "true"),
	"workload":      oneOf(func(*Workload, string) {}, "site.ycsb.workloads.CoreWorkload", "com.yahoo.ycsb.workloads.CoreWorkload", "core"),
}

func whole(least, most uint64, set func(*Workload, uint64)) property {
	return func(w *Workload, v string) error {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is no whole number from %d to %d", v, least, most)
		}
		set(w, n)
		return nil
	}
}

func real(most float64, set func(*Workload, float64)) property {
	return func(w *Workload, v string) error {
		x, err := strconv.ParseFloat(v, 64)
		if err != nil || !(x >= 0 && x <= most) {
			return fmt.Errorf("%q is no number from 0 to %g", v, most)
		}
		set(w, x)
		return nil
	}
}

func seconds(set func(*Workload, time.Duration)) property {
	return func(w *Workload, v string) error {
		x, err := strconv.ParseFloat(v, 64)
		if err != nil || !(x >= 0 && x <= 1e9) {
			return fmt.Errorf("%q is no number of seconds", v)
		}
		set(w, time.Duration(x*float64(time.Second)))
		return nil
	}
}

func truth(set func(*Workload, bool)) property {
	return func(w *Workload, v string) error {
		if v != "true" && v != "false" {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		set(w, v == "true")
		return nil
	}
}

func oneOf(set func(*Workload, string), values ...string) property {
	return func(w *Workload, v string) error {
		for _, known := range values {
			if v == known {
				set(w, v)
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", v, strings.Join(values, ", "))
	}
}

// Load reads a core workload by its letter, or a property file, and then applies
// overrides of the form name=value, which are checked alike.
func Load(name string, overrides []string) (*Workload, error) {
	w := defaults()
	letter := strings.TrimPrefix(strings.ToLower(name), "workload")
	if text, ok := presets[letter]; ok {
		w.Name = strings.ToUpper(letter)
		if err := w.read(name, text); err != nil {
			return nil, err
		}
	} else {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("workload %s: neither one of A to F nor a file", name)
		}
		if err != nil {
			return nil, fmt.Errorf("read workload: %w", err)
		}
		w.Name = name
		if err := w.read(name, string(b)); err != nil {
			return nil, err
		}
	}
	for _, o := range overrides {
		if err := w.set(o); err != nil {
			return nil, err
		}
	}
	return &w, w.check()
}

// read applies a property file: name=value or name: value, # and ! begin a comment.
func (w *Workload) read(name, text string) error {
	scanner := bufio.NewScanner(strings.NewReader(text))
	for line := 1; scanner.Scan(); line++ {
		s := strings.TrimSpace(scanner.Text())
		if s == "" || s[0] == '#' || s[0] == '!' {
			continue
		}
		if err := w.set(s); err != nil {
			return fmt.Errorf("%s:%d: %w", name, line, err)
		}
	}
	return scanner.Err()
}

func (w *Workload) set(s string) error {
	at := strings.IndexAny(s, "=:")
	if at < 0 {
		return fmt.Errorf("%q is not name=value", s)
	}
	name := strings.TrimSpace(s[:at])
	f, ok := properties[name]
	if !ok {
		return fmt.Errorf("unknown property %q", name)
	}
	if err := f(w, strings.TrimSpace(s[at+1:])); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// check finds what does not go together.
func (w *Workload) check() error {
	switch {
	case w.Read+w.Update+w.Insert+w.Scan+w.ReadModifyWrite <= 0:
		return errors.New("no operation has a proportion")
	case w.ScanLeast > w.ScanMost:
		return fmt.Errorf("minscanlength %d is above maxscanlength %d", w.ScanLeast, w.ScanMost)
	case w.Size() > valueMax:
		return fmt.Errorf("a record of %d bytes: want at most %d", w.Size(), valueMax)
	case w.Size() < stampSize:
		return fmt.Errorf("a record of %d bytes: want at least %d", w.Size(), stampSize)
	case w.Distribution == "hotspot" && (w.HotData == 0 || w.HotData == 1):
		return errors.New("hotspotdatafraction must lie between 0 and 1")
	case w.Batch > 1 && w.Target > 0:
		return errors.New("rskv.batch and target exclude each other: a batch has one start")
	case w.Batch > 1 && (w.Scan > 0 || w.Insert > 0 || w.ReadModifyWrite > 0 || w.Update > 0 && !w.WriteAll):
		return errors.New("rskv.batch takes reads, and updates with writeallfields=true, only")
	}
	return nil
}

// Size is the length of a record in bytes.
func (w *Workload) Size() int { return w.FieldCount * w.FieldLength }
