package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// scrubEvery is how often a scrub is asked how far it is.
const scrubEvery = 200 * time.Millisecond

func (t *tool) scrubCommand() *cobra.Command {
	var rate string
	var status, stop bool
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "read the whole log back from the disk and verify it; exit code 1 if there is damage",
		Long: "scrub has the daemon read its log back from the disk, while it is being used, and verify every\n" +
			"record. It waits for the end and lists what is damaged; Ctrl-C stops the scrub. Nothing is\n" +
			"repaired: restore a backup, or take what is whole with `rskvd salvage`.\n\n" +
			"Exit codes: 0 no damage; 1 damage; 2 it could not be done.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status && stop {
				return errors.New("either --status or --stop, not both")
			}
			if stop {
				return t.stopScrub(cmd)
			}
			if !status {
				if err := t.startScrub(cmd, rate); err != nil {
					return err
				}
				if err := t.awaitScrub(cmd); err != nil {
					return err
				}
			}
			s, err := t.scrubStatus(cmd)
			if err != nil {
				return err
			}
			return t.printScrub(s)
		},
	}
	cmd.Flags().StringVar(&rate, "rate", "", "bytes a second that may be read, as 64MiB; 0: no limit (the daemon's scrub_rate)")
	cmd.Flags().BoolVar(&status, "status", false, "tell of the scrub that runs, or the last one, without starting one")
	cmd.Flags().BoolVar(&stop, "stop", false, "stop the one that runs")
	return cmd
}

func (t *tool) startScrub(cmd *cobra.Command, rate string) error {
	bytes := int64(client.ScrubRateDefault)
	if rate != "" {
		var err error
		if bytes, err = parseSize(rate); err != nil {
			return fmt.Errorf("--rate: %w", err)
		}
	}
	return t.call(cmd, func(ctx context.Context, c *client.Client) error { return c.Scrub(ctx, bytes) })
}

func (t *tool) stopScrub(cmd *cobra.Command) error {
	var ran bool
	err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		ran, err = c.StopScrub(ctx)
		return err
	})
	switch {
	case err != nil:
		return err
	case !ran:
		t.note("none is running")
		return errAbsent
	}
	return t.answer("", field{"stopped", true})
}

// scrubStatus asks once.
func (t *tool) scrubStatus(cmd *cobra.Command) (s client.ScrubStatus, err error) {
	err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		s, err = c.ScrubStatus(ctx)
		return err
	})
	return s, err
}

// awaitScrub shows how far the scrub is until it has ended. If the command is
// interrupted, so is the scrub.
func (t *tool) awaitScrub(cmd *cobra.Command) error {
	var at steps
	var bar *progress
	if isTerminal(t.stderr) {
		bar = startProgress(t.stderr, at.line)
	}
	defer bar.end()
	for {
		s, err := t.scrubStatus(cmd)
		if cmd.Context().Err() != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
			defer cancel()
			_, err = t.conn.StopScrub(ctx)
			return errors.Join(cmd.Context().Err(), err)
		}
		if err != nil || s.State != "running" {
			return err
		}
		at.set(s.Bytes, s.Total)
		select {
		case <-cmd.Context().Done():
		case <-time.After(scrubEvery):
		}
	}
}

// printScrub prints what was found, and says how the command is to end.
func (t *tool) printScrub(s client.ScrubStatus) error {
	for _, d := range s.Found {
		text := fmt.Sprintf("damage: %s: log 0x%x to 0x%x (%d bytes): %s", d.File, d.From, d.Until, d.Until-d.From, d.Why)
		if err := t.answer(text, field{"damage", d.File}, field{"from", d.From}, field{"until", d.Until}, field{"error", d.Why}); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%s: %s records in %s of %s bytes", s.State, grouped(int64(s.Records)), grouped(s.Bytes), grouped(s.Total))
	if s.Damages == 0 {
		text += ", no damage"
	} else {
		text += fmt.Sprintf(", %d damaged stretches of %s bytes", s.Damages, grouped(s.DamagedBytes))
	}
	if s.State == "never" {
		text = "never: no scrub since the daemon started"
	}
	err := t.answer(text, field{"state", s.State}, field{"bytes", s.Bytes}, field{"total", s.Total}, field{"records", s.Records},
		field{"damages", s.Damages}, field{"damaged_bytes", s.DamagedBytes}, field{"error", s.Err})
	switch {
	case err != nil:
		return err
	case s.State == "failed":
		return errors.New(s.Err)
	case s.Damages > 0:
		return errAbsent
	case s.State == "stopped":
		return errors.New("the scrub was stopped before its end")
	}
	return nil
}
