package measure

import (
	"context"
	"time"
)

// Contender is a row and what fills it.
type Contender struct {
	Row *Row
	// Run does the work for about d, or a fixed amount of it, and says how much
	// it did. An error ends this contender, not the others.
	Run func(ctx context.Context, d time.Duration) (Sample, error)
}

// Interleave lets every contender run once in each round, in turn forwards and
// backwards, so that a drift of the machine meets all of them alike. It returns
// early, with the context's error, when the context ends.
func Interleave(ctx context.Context, rounds int, d time.Duration, contenders []Contender, progress func(round int, r *Row)) error {
	for round := range rounds {
		for i := range contenders {
			if round%2 == 1 {
				i = len(contenders) - 1 - i
			}
			c := contenders[i]
			if c.Row.Missing != "" || c.Row.Failed != "" {
				continue
			}
			if progress != nil {
				progress(round, c.Row)
			}
			s, err := c.Run(ctx, d)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				c.Row.fail(err)
				continue
			}
			c.Row.add(s)
		}
	}
	return nil
}
