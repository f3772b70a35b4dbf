package fio

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An option that is not understood, and passed over, makes a figure that is not
// of the job: every one must be an error with its name, file and line.
func TestJobs_Errors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no section"},
		{"; nothing\n", "no section"},
		{"[global]\nsize=1m\n", "no job"},
		{"rw=read\n", `j:1: "rw=read" stands before the first section`},
		{"[a\nsize=1m", `j:1: "[a" is no section`},
		{"[]\nsize=1m", "is no section"},
		{"[a]\nsize=1m\nnrfiles=3\n", `j:3: unknown option "nrfiles"`},
		{"[global]\nverify=md5\n[a]\nsize=1m\n", `j:2: unknown option "verify"`},
		{"[a]\nsize=\n", "neither name=value nor a switch"},
		{"[a]\n=3\n", "neither name=value nor a switch"},
		{"[a]\nsize=10q\n", `j:2: size: "10q": there is no suffix "q"`},
		{"[a]\nsize=50%\n", "there is no suffix"},
		{"[a]\nsize=99999999p\n", "too large"},
		{"[a]\nsize=-1\n", "no size"},
		{"[a]\nruntime=5y\n", "j:2: runtime"},
		{"[a]\nsize=1m\nruntime=99999999999999d\n", "too long"},
		{"[a]\nsize=1m\nrw=trim\n", `"trim" is none of`},
		{"[a]\nsize=1m\nrw=randread:8\n", "is none of"},
		{"[a]\nsize=1m\nioengine=mmap\n", `unknown ioengine "mmap"`},
		{"[a]\nsize=1m\niodepth=0\n", "no number from 1"},
		{"[a]\nsize=1m\ndirect=yes\n", "neither 0 nor 1"},
		{"[a]\nsize=1m\nbs=1k,2k,4k\n", "one for reads and one for writes"},
		{"[a]\nsize=1m\nbsrange=4k\n", "is no range"},
		{"[a]\nsize=1m\nbsrange=8k-4k\n", "want 1 to"},
		{"[a]\nsize=1m\nrandom_distribution=normal:3\n", "is none of random"},
		{"[a]\nsize=1m\nrandom_distribution=zipf:1\n", "zipf needs"},
		{"[a]\nsize=1m\nrandom_distribution=pareto:1.5\n", "pareto"},
		{"[a]\nsize=1m\nrandom_distribution=zipf:NaN\n", "zipf needs"},
		{"[a]\nsize=1m\npercentile_list=99:50\n", "must ascend"},
		{"[a]\nsize=1m\npercentile_list=101\n", "no percentile"},
		{"[a]\nsize=1m\nrwmixread=101\n", "no number from 0 to 100"},
		{"[a]\nsize=1m\nfilename=/dev/vda\n", "not the name of one file"},
		{"[a]\nsize=1m\nfilename=a:b\n", "not the name of one file"},
		{"[a]\nsize=1m\ntime_based\n", "time_based needs runtime"},
		{"[a]\nsize=1m\nramp_time=1\n", "ramp_time needs runtime"},
		{"[a]\nrw=read\n", "size is missing"},
		{"[a]\nsize=2k\n", "no room for a block"},
		{"[a]\nsize=1m\noffset=1m\n", "no room for a block"},
		{"[a]\nsize=1m\nnumjobs=200\n[b]\nsize=1m\nnumjobs=200\n", "more than 256 jobs"},
		{"[a]\nsize=1g\nbs=16m\niodepth=4096\n", "is more than"},
		{"[a]\nsize=1m\nioengine=rskv-engine\nrskv_memory=32m\n[b]\nsize=1m\nioengine=rskv-engine\n", "there is one store"},
		{"[a]\nsize=1m\nfilename=x\n[b]\nsize=1m\nfilename=x\nbs=8k\n", "need the same blocks"},
		{"[global]\nstonewall\n[a]\nsize=1m\n", "has no meaning in [global]"},
		{"[a]\nsize=${RSKV_BENCH_NOT_SET}\n", "is not a variable"},
		{"[a]\nsize=${\n", "is not a variable"},
		{"[a]\ninclude none.inc\n", "j:2: include"},
	} {
		f, err := Parse("j", c.text)
		if err == nil {
			_, err = f.Jobs("")
		}
		require.ErrorContains(t, err, c.want, "%q", c.text)
	}
}

// A default or a suffix that differs from fio's makes another job of the same
// file.
func TestJobs_Meaning(t *testing.T) {
	t.Setenv("RSKV_BENCH_SIZE", "3m")
	f, err := Parse("j", `
; a comment
[global]
size = ${RSKV_BENCH_SIZE} # to the end
bs=8k
group_reporting
[reader]
rw=randread
iodepth=4
numjobs=2
runtime=90
percentile_list=50:99.9
[global]
bs=4k,16k
[mixed]
stonewall
readwrite=randrw
rwmixwrite=30
bsrange=4k-12k,8k-16k
runtime=2m
ramp_time=500ms
time_based=1
rate_iops=100,50
random_distribution=zipf:1.2
fdatasync=7
[global]
name=of nothing
[log]
new_group
rw=write
ioengine=libaio
[section]
name=named
timeout=7 ; an older name of runtime
`)
	require.NoError(t, err)
	jobs, err := f.Jobs("")
	require.NoError(t, err)
	require.Len(t, jobs, 5)
	r, m, l, n := jobs[0], jobs[2], jobs[3], jobs[4]
	require.Equal(t, "log", l.Name)
	require.Equal(t, "named", n.Name)
	require.Equal(t, "named.0.0", n.File)
	require.Equal(t, 7*time.Second, n.Runtime)
	require.Equal(t, []string{"reader.0.0", "reader.1.0", "mixed.0.0", "log.0.0"}, []string{r.File, jobs[1].File, m.File, l.File})
	require.Equal(t, Range{8192, 8192}, r.Block[reading])
	require.Equal(t, int64(3<<20), r.Size)
	require.Equal(t, 90*time.Second, r.Runtime)
	require.Equal(t, []float64{50, 99.9}, r.Percentiles)
	require.True(t, r.Read && r.Random && !r.Write && r.Merged && !r.Direct && !r.TimeBased)
	require.Equal(t, [2]Range{{4096, 12288}, {8192, 16384}}, m.Block)
	require.Equal(t, 70, m.ReadShare)
	require.Equal(t, 2*time.Minute, m.Runtime)
	require.Equal(t, 500*time.Millisecond, m.Ramp)
	require.Equal(t, [2]int{100, 50}, m.Rate)
	require.Equal(t, 7, m.Fsync)
	require.Equal(t, Distribution{"zipf", 1.2}, m.Dist)
	require.Equal(t, [2]Range{{4096, 4096}, {16384, 16384}}, l.Block)
	require.Equal(t, []int{0, 0, 1, 2}, []int{r.Group, jobs[1].Group, m.Group, l.Group})
	require.Equal(t, []int{0, 0, 1, 1}, []int{r.Wave, jobs[1].Wave, m.Wave, l.Wave}, "new_group does not wait")
	require.Equal(t, map[string]string{"new_group": "1", "rw": "write", "ioengine": "libaio"}, l.Options)
	jobs, err = f.Jobs(Store)
	require.NoError(t, err)
	require.Equal(t, Store, jobs[3].Engine)
	f, err = Parse("job", "[global]\nioengine=null\n[a]\nsize=4k\n")
	require.NoError(t, err)
	_, err = f.Jobs("")
	require.ErrorContains(t, err, `job:2: ioengine: unknown ioengine "null"`)
	jobs, err = f.Jobs(Sync)
	require.NoError(t, err, "one of fio's own that another takes the place of")
	require.Equal(t, Sync, jobs[0].Engine)
}

// An include that includes itself must end, and one is looked for beside the
// file that names it.
func TestReadFile_Include(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	write("sub/b.inc", "bs=8k\n")
	write("sub/a.inc", "size=1m\ninclude b.inc\n")
	f, err := ReadFile(write("job", "[global]\ninclude sub/a.inc\n[a]\nrw=read\n"))
	require.NoError(t, err)
	jobs, err := f.Jobs("")
	require.NoError(t, err)
	require.Equal(t, int64(8192), jobs[0].Block[reading].Least)
	_, err = ReadFile(write("loop", "[a]\ninclude loop\n"))
	require.ErrorContains(t, err, "files deep")
	_, err = ReadFile(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A job file of ours that fio refuses cannot be compared; one that we refuse is
// no example.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../jobs/*.fio")
	require.NoError(t, err)
	require.Greater(t, len(files), 4)
	program, missing := exec.LookPath("fio")
	for _, path := range files {
		f, err := ReadFile(path)
		require.NoError(t, err)
		_, err = f.Jobs("")
		require.NoError(t, err)
		if missing != nil {
			continue
		}
		job := filepath.Join(t.TempDir(), "job.fio")
		require.NoError(t, os.WriteFile(job, []byte(f.Rewrite("psync", t.TempDir())), 0o644))
		out, err := exec.Command(program, "--parse-only", job).CombinedOutput()
		require.NoError(t, err, "%s: %s", path, out)
	}
}

// fio's own examples are what people try first: each must be a job, or an error that
// says what is not understood.
func TestTheirExamples(t *testing.T) {
	files, err := filepath.Glob("/usr/share/doc/fio/examples/*")
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skip("fio's examples are not installed")
	}
	taken := 0
	for _, path := range files {
		f, err := ReadFile(path)
		if err == nil {
			_, err = f.Jobs("")
		}
		if err == nil {
			taken++
			continue
		}
		require.Contains(t, err.Error(), filepath.Base(path)+":", "%s", path)
	}
	require.Greater(t, taken, 5)
}

// What people write by hand must never crash the parser, and what it takes must
// be a job that can be run, and that is still the same when written for fio.
func FuzzParse(f *testing.F) {
	f.Add("[global]\nsize=1m\n[a]\nrw=randrw\nbs=4k,8k\nnumjobs=3\n")
	f.Add("[a]\nsize=0x100000\nbsrange=512-64k\nrandom_distribution=pareto:0.2\n[b]\nstonewall\nsize=1g\nrate_iops=10,20\n")
	f.Add("[a]\nruntime=1h\ntime_based\nsize=${HOME}\npercentile_list=1:99.99\n; x\n# y\n")
	f.Add("[a]\nsize=7p\nioengine=rskv-socket\nrskv_memory=64m\nrskv_commit=never\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("j", "\n"+text)
		if err != nil {
			return
		}
		for i := range file.Sections {
			for _, s := range file.Sections[i].Settings {
				if s.Name == "" || s.Place.Line < 1 {
					t.Fatalf("setting %+v", s)
				}
			}
		}
		jobs, err := file.Jobs("")
		if err != nil {
			return
		}
		for _, j := range jobs {
			if j.Depth < 1 || j.Size < j.biggest() || j.unit() < 1 || j.unit() > j.biggest() || j.budget() <= 0 && j.IOSize == 0 {
				t.Fatalf("job %+v", j)
			}
		}
		again, err := Parse("k", file.Rewrite("psync", "/tmp"))
		if err != nil {
			t.Fatalf("rewritten: %v", err)
		}
		if n := len(again.Sections); n != len(file.Sections)+1 {
			t.Fatalf("rewritten to %d sections from %d", n, len(file.Sections))
		}
	})
}
