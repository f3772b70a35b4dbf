package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rskv/client"
)

// waiter waits for the answer to one command of a pipe; done is false if a
// condition was not met or a key was not there.
type waiter = func(ctx context.Context) (done bool, err error)

// lineCommand is a command that may stand in a pipe.
type lineCommand struct {
	least, most int    // arguments, the key included
	usage       string // of them
	flags       string // those that it takes
	start       func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error)
}

// lineCommands are the writes, with the arguments that they have in the shell.
// What stands between arguments as --if, --ttl or --sync is a flag there too.
var lineCommands = map[string]lineCommand{
	"put": {2, 2, "KEY VALUE", "--if --ttl --sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		return c.PutAsync(ctx, []byte(args[0]), []byte(args[1]), opts...).Wait, nil
	}},
	"del": {1, 1, "KEY", "--sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		return c.DeleteAsync(ctx, []byte(args[0]), opts...).Wait, nil
	}},
	"add": {1, 2, "KEY [DELTA]", "--ttl --sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		delta := int64(1)
		if len(args) == 2 {
			var err error
			if delta, err = strconv.ParseInt(args[1], 10, 64); err != nil {
				return nil, fmt.Errorf("DELTA %q is not a 64-bit integer", args[1])
			}
		}
		return answered(c.AddAsync(ctx, []byte(args[0]), delta, opts...)), nil
	}},
	"append": {2, 2, "KEY BYTES", "--sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		return answered(c.AppendAsync(ctx, []byte(args[0]), []byte(args[1]), opts...)), nil
	}},
	"expire": {2, 2, "KEY DURATION", "--sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		after, err := lifetime(args[1])
		if err != nil {
			return nil, err
		}
		return c.ExpireAsync(ctx, []byte(args[0]), after, opts...).Wait, nil
	}},
	"cas": {3, 3, "KEY OLD NEW", "--ttl --sync", func(ctx context.Context, c *client.Client, args []string, opts []client.WriteOption) (waiter, error) {
		return c.CompareAndSwapAsync(ctx, []byte(args[0]), []byte(args[1]), []byte(args[2]), opts...).Wait, nil
	}},
	"sync": {0, 0, "nothing", "", func(_ context.Context, c *client.Client, _ []string, _ []client.WriteOption) (waiter, error) {
		return func(ctx context.Context) (bool, error) { _, err := c.Sync(ctx); return true, err }, nil
	}},
}

// answered waits for a write that either is done or fails.
func answered(w *client.Future[int64]) waiter {
	return func(ctx context.Context) (bool, error) { _, err := w.Wait(ctx); return true, err }
}

// startLine sends one command and returns what waits for its answer.
func startLine(ctx context.Context, c *client.Client, words []string) (waiter, error) {
	name := words[0]
	command, ok := lineCommands[name]
	if !ok {
		return nil, fmt.Errorf("%q is not put, del, add, append, cas, expire or sync", name)
	}
	flags, args, err := lineFlags(words[1:])
	switch {
	case err != nil:
		return nil, err
	case len(args) < command.least || len(args) > command.most:
		return nil, fmt.Errorf("%s takes %s, %d given", name, command.usage, len(args))
	}
	for flag := range flags {
		if !slices.Contains(strings.Fields(command.flags), flag) {
			return nil, fmt.Errorf("%s has no %s", name, flag)
		}
	}
	_, sync := flags["--sync"]
	opts, err := conditions(flags["--if"], flags["--ttl"], sync)
	if err != nil {
		return nil, err
	}
	return command.start(ctx, c, args, opts)
}

// lineFlags takes the flags, with their values, from the words of a line. What
// follows a -- is none.
func lineFlags(words []string) (flags map[string]string, rest []string, err error) {
	for i := 0; i < len(words); i++ {
		name, value, given := strings.Cut(words[i], "=")
		switch {
		case words[i] == "--":
			return flags, append(rest, words[i+1:]...), nil
		case !strings.HasPrefix(name, "--"):
			rest = append(rest, words[i])
			continue
		case name == "--sync" && !given:
		case name != "--if" && name != "--ttl":
			return nil, nil, fmt.Errorf("unknown flag %s (a value that begins so stands behind a --)", name)
		case !given && i+1 == len(words):
			return nil, nil, errors.New(name + " has no value")
		case !given:
			i++
			value = words[i]
		}
		if flags == nil {
			flags = map[string]string{}
		}
		flags[name] = value
	}
	return flags, rest, nil
}
