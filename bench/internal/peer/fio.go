package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"rskv/bench/internal/measure"
)

// FioJob is one job of fio on one file, past the page cache.
type FioJob struct {
	File  string
	Size  int64         // of the file in bytes
	RW    string        // "randread", "write"
	Block int           // bytes
	Depth int           // requests in flight
	Time  time.Duration // how long; 0: until the file is through
	Sync  bool          // what was written is on stable storage when the job ends
}

// fioEngines are tried in this order: what the job's figures are best with.
var fioEngines = []string{"io_uring", "libaio"}

// Run runs the job with the first engine that works here.
func (j FioJob) Run(ctx context.Context) (measure.Sample, error) {
	program, err := find("fio")
	if err != nil {
		return measure.Sample{}, err
	}
	var failed error
	for _, engine := range fioEngines {
		out, err := Command(ctx, program, j.args(engine)...).Output()
		if err == nil {
			return parseFio(out)
		}
		said := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			said, _, _ = strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		}
		failed = fmt.Errorf("fio with %s: %w: %s", engine, err, said)
	}
	return measure.Sample{}, failed
}

func (j FioJob) args(engine string) []string {
	a := []string{
		"--name=job", "--filename=" + j.File, fmt.Sprintf("--size=%d", j.Size), "--rw=" + j.RW,
		fmt.Sprintf("--bs=%d", j.Block), fmt.Sprintf("--iodepth=%d", j.Depth), "--ioengine=" + engine,
		"--direct=1", "--norandommap=1", "--randrepeat=0", "--fallocate=none", "--output-format=json",
	}
	if j.Time > 0 {
		a = append(a, "--time_based=1", fmt.Sprintf("--runtime=%dms", j.Time.Milliseconds()))
	}
	if j.Sync {
		a = append(a, "--end_fsync=1")
	}
	return a
}

// fioOutput is the part of fio's JSON that is read.
type fioOutput struct {
	Jobs []struct {
		Error      int     `json:"error"`
		JobRuntime float64 `json:"job_runtime"` // ms
		UserCPU    float64 `json:"usr_cpu"`     // percent of JobRuntime
		SystemCPU  float64 `json:"sys_cpu"`
		Read       fioSide `json:"read"`
		Write      fioSide `json:"write"`
	} `json:"jobs"`
}

type fioSide struct {
	TotalIOs uint64  `json:"total_ios"`
	Runtime  float64 `json:"runtime"` // ms
}

// parseFio turns fio's JSON into a sample whose operations are its I/Os. fio may
// print a line of warning before the JSON.
func parseFio(out []byte) (measure.Sample, error) {
	var o fioOutput
	begin := strings.IndexByte(string(out), '{')
	if begin < 0 {
		return measure.Sample{}, fmt.Errorf("fio's answer is no JSON: %.100q", out)
	}
	if err := json.Unmarshal(out[begin:], &o); err != nil {
		return measure.Sample{}, fmt.Errorf("fio's answer: %w", err)
	}
	if len(o.Jobs) != 1 || o.Jobs[0].Error != 0 {
		return measure.Sample{}, fmt.Errorf("fio's answer has an error or not one job: %.100q", out)
	}
	j := &o.Jobs[0]
	s := measure.Sample{
		Ops:     j.Read.TotalIOs + j.Write.TotalIOs,
		Elapsed: time.Duration(max(j.Read.Runtime, j.Write.Runtime) * float64(time.Millisecond)),
		CPU:     time.Duration((j.UserCPU + j.SystemCPU) / 100 * j.JobRuntime * float64(time.Millisecond)),
	}
	if s.Ops == 0 || s.Elapsed <= 0 {
		return s, fmt.Errorf("fio did nothing: %.100q", out)
	}
	return s, nil
}
