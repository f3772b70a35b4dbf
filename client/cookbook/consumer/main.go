// Command consumer applies messages exactly once, whatever is killed meanwhile: itself, the connection
// or the daemon. The messages come from a source that can be read again from any of them, as files and
// logs of messages can.
//
//	consumer STATE MESSAGES     applies messages 0 to MESSAGES-1
//
// Nothing is stored about how far it is: the session knows. Each message makes the same number of writes,
// so that the number of the last write that took effect says which message was the last, and which of its
// writes. What is kept in the file STATE is the session's name alone, written before the first message.
//
// It ends with an error when it cannot be sure, and is to be started again then (Restart=on-failure).
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"rskv/client"
)

// writesPerMessage is how many writes a message makes, always.
const writesPerMessage = 2

// apply starts write i of message n. What it writes depends on the message alone.
func apply(ctx context.Context, c *client.Client, n uint64, i int) func(context.Context) error {
	account := fmt.Appendf(nil, "account:%d", n%10)
	if i == 0 {
		w := c.AddAsync(ctx, account, int64(n))
		return func(ctx context.Context) error { _, err := w.Wait(ctx); return err }
	}
	w := c.AppendAsync(ctx, append(account, ":journal"...), fmt.Appendf(nil, "%d ", n))
	return func(ctx context.Context) error { _, err := w.Wait(ctx); return err }
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: consumer STATE MESSAGES")
	}
	messages, err := strconv.ParseUint(os.Args[2], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	if err := run(os.Args[1], messages); err != nil {
		log.Fatal(err)
	}
}

func run(state string, messages uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := open(ctx, state)
	if err != nil {
		return err
	}
	defer c.Close()
	applied := c.Session().Applied
	fmt.Printf("%d writes are there: going on with message %d\n", applied, applied/writesPerMessage)

	waiting := make(chan func(context.Context) error, 1000) // under way at a time
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for wait := range waiting {
			// The effect is what counts: that an answer was lost does not matter.
			if err := wait(ctx); err != nil && !errors.Is(err, client.ErrAnswerLost) {
				failed <- err
				return
			}
		}
	}()
	for w := applied; w < messages*writesPerMessage; w++ {
		select {
		case waiting <- apply(ctx, c, w/writesPerMessage, int(w%writesPerMessage)):
		case err := <-failed:
			return err
		}
	}
	close(waiting)
	if err := <-failed; err != nil {
		return err
	}
	if _, err := c.Sync(ctx); err != nil { // Close ends the promise
		return err
	}
	fmt.Println("done")
	return nil
}

// open begins a session and stores its name, or resumes the one that is stored.
func open(ctx context.Context, state string) (*client.Client, error) {
	loss := client.WithSessionLoss(func(l client.SessionLoss) { log.Fatal(l.Err) }) // exactly once has ended
	patient := client.WithRetryFor(time.Minute)
	name, err := os.ReadFile(state)
	if errors.Is(err, os.ErrNotExist) {
		c, err := client.Dial(ctx, client.DefaultSocket(), client.WithSession(), loss, patient)
		if err != nil {
			return nil, err
		}
		id := c.Session().ID
		return c, store(state, []byte(hex.EncodeToString(id[:])))
	}
	if err != nil {
		return nil, err
	}
	var id [16]byte
	if n, err := hex.Decode(id[:], name); err != nil || n != len(id) {
		return nil, fmt.Errorf("%s holds no session", state)
	}
	c, err := client.Dial(ctx, client.DefaultSocket(), client.WithResume(id), loss, patient)
	if err != nil {
		return nil, err
	}
	// What the former process wrote only the daemon has: before it is on stable storage a crash may
	// undo it, and nobody could send it again.
	_, err = c.Sync(ctx)
	return c, err
}

// store writes a file that is there whole, and after a crash too, or not at all.
func store(name string, content []byte) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
