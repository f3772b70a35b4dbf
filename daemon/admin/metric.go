package admin

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is a family's type in the exposition.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"   // only grows; its name ends in _total
	Gauge     Kind = "gauge"     // goes up and down
	Histogram Kind = "histogram" // a distribution
)

// Family is all samples of one name.
type Family struct {
	Name    string // with the unit, in base units: seconds, bytes
	Kind    Kind
	Help    string // one sentence
	Samples []Sample
}

// Sample is one value, or one distribution, with the labels that tell it from
// others of its family.
type Sample struct {
	Labels []Label
	Value  float64       // counter and gauge
	Of     *Distribution // histogram
}

// Label is one name with its value; the value may be any text.
type Label struct{ Name, Value string }

// Distribution is what a histogram has counted.
type Distribution struct {
	// Bounds are the upper ends of the buckets, ascending; one more bucket
	// without an end follows.
	Bounds []float64
	// Counts are the values in each bucket by itself; one more than Bounds.
	Counts []uint64
	// Sum of all values.
	Sum float64
}

// AppendText appends families in the text format of Prometheus, version 0.0.4.
// Families come out in the order given, samples of a family together.
func AppendText(dst []byte, families []Family) []byte {
	b := bytes.NewBuffer(dst)
	for _, f := range families {
		if len(f.Samples) == 0 {
			continue
		}
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, escapeHelp.Replace(f.Help), f.Name, f.Kind)
		for _, s := range f.Samples {
			if s.Of != nil {
				writeDistribution(b, f.Name, s)
				continue
			}
			writeLine(b, f.Name, s.Labels, s.Value)
		}
	}
	return b.Bytes()
}

func writeDistribution(b *bytes.Buffer, name string, s Sample) {
	total := uint64(0)
	for i, n := range s.Of.Counts {
		total += n
		bound := math.Inf(1)
		if i < len(s.Of.Bounds) {
			bound = s.Of.Bounds[i]
		}
		labels := append(s.Labels[:len(s.Labels):len(s.Labels)], Label{"le", number(bound)})
		writeLine(b, name+"_bucket", labels, float64(total))
	}
	writeLine(b, name+"_sum", s.Labels, s.Of.Sum)
	writeLine(b, name+"_count", s.Labels, float64(total))
}

func writeLine(b *bytes.Buffer, name string, labels []Label, v float64) {
	b.WriteString(name)
	for i, l := range labels {
		open := ","
		if i == 0 {
			open = "{"
		}
		fmt.Fprintf(b, `%s%s="%s"`, open, l.Name, escapeLabel.Replace(l.Value))
	}
	if len(labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteByte(' ')
	b.WriteString(number(v))
	b.WriteByte('\n')
}

func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)
