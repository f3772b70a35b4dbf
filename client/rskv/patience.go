package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// patient runs f, one request that takes as long as the store is large, such as
// a checkpoint. --timeout is then for signs of life: the daemon answers pings
// beside it. On a terminal a line tells what is waited for.
func (t *tool) patient(cmd *cobra.Command, what string, f func(ctx context.Context, c *client.Client) error) error {
	dog := t.watch(cmd.Context())
	defer dog.stop()
	c, err := t.dial(dog.ctx)
	if err != nil {
		return dog.why(err)
	}
	ctx, cancel := context.WithCancel(dog.ctx)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		dog.listen(ctx, c)
	}()
	var bar *progress
	if isTerminal(t.stderr) {
		bar = startProgress(t.stderr, func(took time.Duration) string {
			if took < time.Second {
				return "" // most are done by then
			}
			return fmt.Sprintf("%s  %v", what, took.Round(time.Second))
		})
	}
	err = dog.why(f(dog.ctx, c))
	cancel()
	<-listening
	bar.end()
	return err
}

// listen pings until ctx ends, and keeps the dog quiet as long as the daemon
// answers.
func (d *watchdog) listen(ctx context.Context, c *client.Client) {
	if d.timer == nil {
		return // --timeout 0
	}
	tick := time.NewTicker(max(d.timeout/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.Ping(ctx) == nil {
			d.alive()
		}
	}
}
