package fio

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes a line for each direction of each job.
func (o *Output) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	for _, line := range o.About {
		fmt.Fprintf(&out, "%s\n", line)
	}
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "job\tgroup\tdoes\tIOPS\tMiB/s\tp50 us\tp99 us\tmax us\tCPU us/IO\tsyncs\t")
	for _, j := range o.Jobs {
		for _, s := range j.sides() {
			fmt.Fprintf(tw, "%s\t%d\t%s\t%.0f\t%.1f\t%s\t%s\t%.0f\t%.2f\t%d\t\n", j.Name, j.Group, s.name, s.IOPS, float64(s.BWBytes)/(1<<20),
				micros(&s.Clat, 50), micros(&s.Clat, 99), float64(s.Clat.Max)/1000, j.CPU()/1000, j.Sync.IOs)
		}
	}
	// Writing into a buffer cannot fail.
	_ = tw.Flush()
	_, err := out.WriteTo(w)
	return err
}

// namedSide is a direction that did something.
type namedSide struct {
	name string
	*SideOutput
}

func (j *JobOutput) sides() []namedSide {
	var list []namedSide
	for _, s := range []namedSide{{"read", &j.Read}, {"write", &j.Write}} {
		if s.IOs > 0 {
			list = append(list, s)
		}
	}
	return list
}

// micros prints a percentile; - if the job did not ask for it.
func micros(l *Latency, percent float64) string {
	if v, ok := l.Percentile[percentName(percent)]; ok {
		return fmt.Sprintf("%.1f", float64(v)/1000)
	}
	return "-"
}
