package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"rskv/client"
)

// fileFlags are the flags that import, verify and export share.
type fileFlags struct {
	format string
	prefix string
}

func (f *fileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", "", formats+"; guessed when not given")
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "what keys have in front of the path of a file in a tree, or of a key in Redis; of a whole export, what keys begin with")
}

const formatsHelp = "A tree is a directory: the path of each file below it, with slashes, is a key, its content the\n" +
	"value; symbolic links are followed. In NDJSON each line is {\"key\":...,\"value\":...}, with\n" +
	"key_base64 and value_base64 for bytes that are not UTF-8, and \"expires\":\"2026-01-31T23:59:59.999Z\" for\n" +
	"a key that has a time to live. In TSV it is key, tab, value, with tab,\n" +
	"newline, carriage return and backslash written \\t \\n \\r \\\\, and \\xHH understood.\n\n" +
	"redis://[USER:PASSWORD@]HOST[:PORT][/DB] and redis+unix:///SOCKET[?db=DB] are Redis servers, of which\n" +
	"keys with strings are taken, with what they have left; those of other types are named and counted.\n" +
	"Numbers stay text. Trees and TSV have no times to live."

func (t *tool) importCommand() *cobra.Command {
	var files fileFlags
	var check, sync bool
	cmd := &cobra.Command{
		Use:   "import SRC",
		Short: "store a directory tree, NDJSON, TSV, or what a Redis server holds",
		Long: "import stores what SRC holds: a directory, a file, - for stdin, or a Redis server. What cannot be read or\n" +
			"stored is named and counted, the rest goes on, and the exit code is 2. What has expired is only counted.\n\n" + formatsHelp,
		Args: arguments(1, 1, "SRC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check && args[0] == "-" {
				return errors.New("--verify reads SRC twice, which stdin cannot be")
			}
			j, err := t.job(cmd, "imported", args[0], files, true)
			if err != nil {
				return err
			}
			defer j.in.close()
			j.transfer.start, j.transfer.handle = j.put, j.stored
			if err := j.run(t.stdout); err != nil {
				return err
			}
			if sync {
				if err := t.call(cmd, func(ctx context.Context, c *client.Client) error { _, err := c.Sync(ctx); return err }); err != nil {
					return err
				}
			}
			if check {
				return t.verify(cmd, args[0], files)
			}
			return nil
		},
	}
	files.add(cmd)
	cmd.Flags().BoolVar(&check, "verify", false, "then read everything back and compare")
	cmd.Flags().BoolVar(&sync, "sync", false, "return only when all of it is on stable storage")
	return cmd
}

func (t *tool) verifyCommand() *cobra.Command {
	var files fileFlags
	cmd := &cobra.Command{
		Use:   "verify SRC",
		Short: "compare what import would store with what is stored",
		Long: "verify reads every key of SRC back and compares it byte for byte with its value in SRC. The\n" +
			"exit code is 1 if a key is missing or different. Of a key that stands in SRC several times\n" +
			"only the last value can be the same.\n\n" + formatsHelp,
		Args: arguments(1, 1, "SRC"),
		RunE: func(cmd *cobra.Command, args []string) error { return t.verify(cmd, args[0], files) },
	}
	files.add(cmd)
	return cmd
}

// verify compares src with the store.
func (t *tool) verify(cmd *cobra.Command, src string, files fileFlags) error {
	j, err := t.job(cmd, "verified", src, files, true)
	if err != nil {
		return err
	}
	defer j.in.close()
	j.transfer.start, j.transfer.handle = j.mget, j.compare
	return j.run(t.stdout)
}

func (t *tool) exportCommand() *cobra.Command {
	var files fileFlags
	var like, from string
	cmd := &cobra.Command{
		Use:   "export DST",
		Short: "write keys into a directory tree, NDJSON, TSV or a Redis server",
		Long: "export writes keys with their values to DST: a directory, a file, - for stdout, or a Redis server. It takes\n" +
			"every key there is, or those that begin with --prefix; --like SRC takes those of a tree or file as import\n" +
			"would, --keys-from FILE those of a list, one a line (- is stdin; with --hex in hexadecimal). A key that is\n" +
			"absent, or cannot be a file name, is named and counted. The store may be used meanwhile: each value is\n" +
			"whole, but they need not be of one moment, as those of a backup are.\n\n" + formatsHelp,
		Args: arguments(1, 1, "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if like != "" && from != "" {
				return errors.New("export takes --like or --keys-from, not both")
			}
			j, err := t.exportJob(cmd, like, from, files)
			if err != nil {
				return err
			}
			defer j.in.close()
			f, err := parseFormat(files.format)
			if err != nil {
				return err
			}
			out, err := openOutput(args[0], f, t.stdout, []byte(files.prefix))
			if err != nil {
				return err
			}
			j.transfer.start = j.read(keepsExpiry(out))
			j.transfer.handle = func(p pair, a answer) error { return j.write(out, p, a) }
			j.finally = out.close
			report := t.stdout
			if args[0] == "-" {
				report = t.stderr // stdout is for the data
			}
			return j.run(report)
		},
	}
	files.add(cmd)
	cmd.Flags().StringVar(&like, "like", "", "export the keys that import SRC would store")
	cmd.Flags().StringVar(&from, "keys-from", "", "export the keys listed in a file")
	return cmd
}

// exportJob prepares an export of the keys of like, of the list from, or of all.
func (t *tool) exportJob(cmd *cobra.Command, like, from string, files fileFlags) (*job, error) {
	if like != "" {
		files.format = "" // --format is about DST
		return t.job(cmd, "exported", like, files, false)
	}
	if from == "" {
		in, err := t.everything(cmd, []byte(files.prefix))
		if err != nil {
			return nil, err
		}
		j := t.jobOf(cmd, "exported", in)
		j.scanned = true
		return j, nil
	}
	r, closeList := t.stdin, func() error { return nil }
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		r, closeList = file, file.Close
	}
	return t.jobOf(cmd, "exported", &input{pairs: keysOf(r, t.hex), close: closeList}), nil
}
