package fio

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// percentilesMax is how many percentiles fio takes.
	percentilesMax = 20
	// depthMax bounds the requests of one job in flight, and their buffers.
	depthMax = 4096
	// jobsMax bounds the jobs of a file, clones included: each is a goroutine
	// with its own buffers.
	jobsMax = 256
	// blockMax is the largest block in bytes: the largest value of the engine.
	blockMax = 16 << 20
	// buffersMax bounds the memory of all buffers of a file, in bytes.
	buffersMax = 8 << 30
)

// Engine is what a job's requests are made to.
type Engine string

// The engines. A job file may also name one of fio's own: see engineNames.
const (
	Uring  Engine = "rskv-uring"  // the device layer through io_uring
	Sync   Engine = "rskv-sync"   // the device layer through pread/pwrite
	Auto   Engine = "rskv-device" // the device layer, whichever works best here
	Store  Engine = "rskv-engine" // the store in process
	Socket Engine = "rskv-socket" // the store through a daemon's socket
)

// Distribution is how blocks are chosen by a random job.
type Distribution struct {
	Kind  string  // "random", "zipf" or "pareto"
	Theta float64 // of zipf; of pareto its power
}

// Job is what one section, or one of its clones, asks for. The zero value is not
// a job: see defaults.
type Job struct {
	Name    string
	Place   Place
	Options map[string]string // as given in the section
	Group   int               // jobs of one group are reported together, if Merged
	Wave    int               // jobs of one wave run at the same time, one wave after the other
	Merged  bool              // group_reporting
	Clone   int               // of NumJobs

	Engine    Engine
	File      string // region or range of keys; jobs with the same one share it
	Directory string

	Read, Write, Random bool
	ReadShare           int // percent of the requests, if Read and Write
	Block               [2]Range
	Depth               int
	NumJobs             int
	Size                int64 // of the file, bytes
	Offset              int64
	IOSize              int64 // bytes to transfer, 0: Size
	Loops               int
	Runtime             time.Duration // 0: until IOSize is done
	Ramp                time.Duration
	TimeBased           bool
	Direct              bool
	Fsync               int // a sync after that many writes; 0: none
	EndFsync            bool
	Overwrite           bool
	NoRandomMap         bool
	Repeat              bool // the same draws every time
	Dist                Distribution
	Rate                [2]int // requests a second, 0: no limit; of reads and of writes
	Percentiles         []float64

	Memory int64         // of the store, bytes
	Commit time.Duration // of the store; negative: when asked
}

// Directions index Block and Rate.
const (
	reading = iota
	writing
)

// Range is the sizes of blocks, in bytes; both are the same unless bsrange says
// more.
type Range struct{ Least, Most int64 }

// Defaults of fio, where it has them.
func defaults() Job {
	return Job{
		Engine: Auto, Read: true, ReadShare: 50, Block: [2]Range{{4096, 4096}, {4096, 4096}},
		Depth: 1, NumJobs: 1, Loops: 1, Dist: Distribution{Kind: "random"}, Repeat: true,
		Percentiles: []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99},
		Memory:      256 << 20, Commit: time.Second, Options: map[string]string{},
	}
}

// with is the section with another engine where it names one, unless override is
// empty: what it names may be one that only fio has.
func (s Section) with(override Engine) *Section {
	if override != "" {
		s.Settings = slices.Clone(s.Settings)
		for i := range s.Settings {
			if set := &s.Settings[i]; set.Name == "ioengine" {
				set.Value, set.Bare = string(override), false
			}
		}
	}
	return &s
}

// Jobs turns sections into jobs, clones included, in the order they stand. With
// override an engine takes the place of all that the file names.
func (f *File) Jobs(override Engine) ([]*Job, error) {
	global := defaults()
	var jobs []*Job
	group, wave := 0, 0
	for _, section := range f.Sections {
		s := section.with(override)
		if s.Name == "global" {
			if err := apply(&global, s, nil); err != nil {
				return nil, err
			}
			continue
		}
		job := global
		job.Name, job.Place, job.Options = s.Name, s.Place, map[string]string{}
		var o once
		if err := apply(&job, s, &o); err != nil {
			return nil, err
		}
		if (o.stonewall || o.newGroup) && len(jobs) > 0 {
			group++
		}
		if o.stonewall && len(jobs) > 0 {
			wave++
		}
		job.Group, job.Wave = group, wave
		if override != "" {
			job.Engine = override
		}
		if err := job.check(); err != nil {
			return nil, fmt.Errorf("%s: job %s: %w", s.Place, s.Name, err)
		}
		if len(jobs)+job.NumJobs > jobsMax {
			return nil, fmt.Errorf("%s: job %s: more than %d jobs", s.Place, s.Name, jobsMax)
		}
		jobs = append(jobs, job.clones()...)
	}
	if len(jobs) == 0 {
		return nil, errors.New("the job file has no job, only [global]")
	}
	return jobs, checkTogether(jobs)
}

// clones are the job, NumJobs times. They share a file only if it has a name.
func (j Job) clones() []*Job {
	list := make([]*Job, j.NumJobs)
	for i := range list {
		c := j
		c.Clone = i
		if c.File == "" {
			c.File = fmt.Sprintf("%s.%d.0", j.Name, i)
		}
		list[i] = &c
	}
	return list
}

// check finds what does not go together in one job.
func (j *Job) check() error {
	most := int64(0)
	for d, b := range j.Block {
		if d == reading && !j.Read || d == writing && !j.Write {
			continue
		}
		if b.Least < 1 || b.Most < b.Least || b.Most > blockMax {
			return fmt.Errorf("blocks of %d to %d bytes: want 1 to %d", b.Least, b.Most, blockMax)
		}
		most = max(most, b.Most)
	}
	switch {
	case j.Size <= 0:
		return errors.New("size is missing")
	case j.Offset >= j.Size || j.Size-j.Offset < most:
		return fmt.Errorf("size %d, less offset %d, has no room for a block of %d", j.Size, j.Offset, most)
	case j.TimeBased && j.Runtime == 0:
		return errors.New("time_based needs runtime")
	case j.Ramp > 0 && j.Runtime == 0:
		return errors.New("ramp_time needs runtime")
	case int64(j.Depth)*most*int64(j.NumJobs) > buffersMax:
		return fmt.Errorf("iodepth x bs x numjobs is more than %d bytes", int64(buffersMax))
	case j.store() && int64(j.Depth)*most > j.Memory:
		return errors.New("iodepth x bs is more than rskv_memory")
	}
	return nil
}

// store says whether the job asks a store for keys, not a device for blocks.
func (j *Job) store() bool { return j.Engine == Store || j.Engine == Socket }

// checkTogether finds what jobs cannot have different.
func checkTogether(jobs []*Job) error {
	type file struct {
		engine Engine
		name   string
	}
	first := map[file]*Job{}
	for _, j := range jobs {
		key := file{j.Engine, j.File}
		f, known := first[key]
		if !known {
			first[key] = j
			continue
		}
		if f.unit() != j.unit() || f.Direct != j.Direct {
			return fmt.Errorf("%s: job %s: jobs on one file need the same blocks and direct", j.Place, j.Name)
		}
		f.Size = max(f.Size, j.Size)
	}
	var memory *Job
	for _, j := range jobs {
		if !j.store() {
			continue
		}
		if memory != nil && (memory.Memory != j.Memory || memory.Commit != j.Commit) {
			return fmt.Errorf("%s: job %s: there is one store, rskv_memory and rskv_commit must be the same for all its jobs", j.Place, j.Name)
		}
		memory = j
	}
	return nil
}

// unit is what offsets are multiples of, in bytes.
func (j *Job) unit() int64 {
	switch {
	case !j.Write:
		return j.Block[reading].Least
	case !j.Read:
		return j.Block[writing].Least
	}
	return min(j.Block[reading].Least, j.Block[writing].Least)
}

// biggest is the largest block in bytes.
func (j *Job) biggest() int64 {
	most := int64(0)
	if j.Read {
		most = j.Block[reading].Most
	}
	if j.Write {
		most = max(most, j.Block[writing].Most)
	}
	return most
}

// budget is how many bytes one pass transfers.
func (j *Job) budget() int64 {
	if j.IOSize > 0 {
		return j.IOSize
	}
	return (j.Size - j.Offset) * int64(j.Loops)
}

// RW is the job's rw in fio's words.
func (j *Job) RW() string {
	name := "read"
	switch {
	case j.Read && j.Write:
		name = "rw"
	case j.Write:
		name = "write"
	}
	if j.Random {
		return "rand" + name
	}
	return name
}
