package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rskv/daemon"
	"rskv/engine"
	"rskv/ioring"
)

// Commands on the directory of a store that no daemon serves. They end with
//
//	0  nothing is damaged, everything was restored
//	1  there is damage, something was lost
//	2  it could not be done
const (
	exitDamage = 1
	exitError  = 2
)

// exit is how a command wants the process to end. err is printed unless it
// is nil: what was found has been printed already.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return "damage was found"
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// exitCode prints what is wrong and says how the process is to end.
func exitCode(err error, stderr io.Writer) int {
	var e *exit
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &e):
		e = &exit{1, err}
	}
	if e.err != nil {
		fmt.Fprintln(stderr, "rskvd:", e.err)
	}
	return e.code
}

// offline is one run of such a command.
type offline struct {
	cmd   *cobra.Command
	json  bool
	shown time.Time // when progress was last written
	bar   bool      // standard error is a terminal
	open  bool      // a line of progress is on it
	err   error     // the first write of a result that failed
}

// offlineCommands are verify, salvage and restore.
func offlineCommands() []*cobra.Command {
	verify := offlineCommand("verify DIR", "Look for damage in a store that is not being served", 1, verifyStore)
	verify.Long = "Reads everything in the directory of a store and changes nothing. Reports every\nstretch of damage. Ends with 0: no damage, 1: damage, 2: could not look."
	verify.Example = "  rskvd verify /var/lib/rskv"
	salvage := offlineCommand("salvage DIR NEWDIR", "Make a new store of what is whole in a damaged one", 2, salvageStore)
	salvage.Long = "Writes what is whole in the store at DIR, which is not changed, to a new one in\nNEWDIR, which must be empty or missing. Of each key the newest version that is\nwhole wins: one that was in a damaged stretch comes back as it was before, or not\nat all, and a key whose delete was there comes back. Which keys these are cannot\nbe known; the stretches are listed. Ends with 0: nothing was lost, 1: something\nwas, 2: it failed, and NEWDIR is incomplete."
	salvage.Example = "  rskvd salvage /var/lib/rskv /var/lib/rskv.whole"
	restore := offlineCommand("restore FILE|- DIR", "Make a store of a backup", 2, restoreStore)
	restore.Long = "Reads a backup from FILE, or standard input, into DIR, which must be empty or\nmissing. A backup that is damaged or cut short leaves nothing behind that opens.\nWith --check DIR is left out, and the backup only verified."
	restore.Example = "  rskvd restore --check monday.bak\n  rskvd restore monday.bak /var/lib/rskv\n  gunzip <monday.bak.gz | rskvd restore - /tmp/restored"
	restore.Flags().Bool("check", false, "only verify the backup")
	restore.Args = func(cmd *cobra.Command, args []string) error {
		if check, _ := cmd.Flags().GetBool("check"); check {
			return takes(1, "restore --check takes FILE", args)
		}
		return takes(2, "restore takes FILE DIR", args)
	}
	return []*cobra.Command{verify, salvage, restore}
}

func offlineCommand(use, short string, args int, run func(o *offline, args []string) (damaged bool, err error)) *cobra.Command {
	o := &offline{}
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, list []string) error {
			return takes(args, strings.Replace(use, " ", " takes ", 1), list)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.cmd = cmd
			file, ok := cmd.ErrOrStderr().(*os.File)
			o.bar = ok && term.IsTerminal(int(file.Fd()))
			damaged, err := run(o, args)
			o.endProgress()
			var e *exit
			if errors.As(err, &e) {
				return e
			}
			if err = errors.Join(err, o.err); err != nil {
				return &exit{exitError, err}
			}
			if damaged {
				return &exit{exitDamage, nil}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, an object a line")
	return cmd
}

// takes makes a wrong number of arguments an error that names them, and not damage.
func takes(n int, usage string, args []string) error {
	if len(args) != n {
		return &exit{exitError, fmt.Errorf("%s, %d given", usage, len(args))}
	}
	return nil
}

// print writes a line of the result: as JSON, or as text.
func (o *offline) print(v any, format string, args ...any) {
	o.endProgress()
	line := fmt.Appendf(nil, format, args...)
	if o.json {
		var err error
		if line, err = json.Marshal(v); err != nil {
			panic(fmt.Sprintf("rskvd: %T as JSON: %v", v, err))
		}
	}
	if _, err := o.cmd.OutOrStdout().Write(append(line, '\n')); err != nil && o.err == nil {
		o.err = err
	}
}

// progressEvery is how often progress is shown.
const progressEvery = 200 * time.Millisecond

func (o *offline) progress(done, total int64) {
	if now := time.Now(); o.bar && now.Sub(o.shown) > progressEvery && total > 0 {
		o.shown, o.open = now, true
		fmt.Fprintf(o.cmd.ErrOrStderr(), "\r%3d %% of %d MiB", done*100/total, total>>20)
	}
}

func (o *offline) endProgress() {
	if o.open {
		fmt.Fprint(o.cmd.ErrOrStderr(), "\r\x1b[K")
		o.open = false
	}
}

type damageLine struct {
	Damage string `json:"damage"` // file
	From   *int64 `json:"from,omitempty"`
	Until  *int64 `json:"until,omitempty"`
	Error  string `json:"error"`
}

func (o *offline) damage(d engine.Damage) {
	line := damageLine{Damage: d.File, Error: d.Err.Error()}
	if d.From >= 0 {
		line.From, line.Until = &d.From, &d.Until
	}
	o.print(line, "%v", d)
}

// verifyLine has the fields of VerifyResult, under names of its own.
type verifyLine struct {
	Opens        bool   `json:"opens"`
	Why          string `json:"why,omitempty"`
	Damages      int    `json:"damages"`
	DamagedBytes int64  `json:"damaged_bytes"`
	Version      uint64 `json:"version"`
	Keys         int64  `json:"keys"`
	Checkpoints  int    `json:"checkpoints"`
	Begin        int64  `json:"begin"`
	Tail         int64  `json:"tail"`
	Discarded    int64  `json:"discarded"`
	Bytes        int64  `json:"bytes"`
	Records      uint64 `json:"records"`
	Values       uint64 `json:"values"`
	Large        uint64 `json:"large"`
	Tombstones   uint64 `json:"tombstones"`
	Chunks       uint64 `json:"chunks"`
	Commits      uint64 `json:"commits"`
	LostChunks   uint64 `json:"lost_chunks"`
	LostValues   uint64 `json:"lost_values"`
}

func newVerifyLine(r engine.VerifyResult) verifyLine {
	return verifyLine{
		Opens: r.Opens, Why: r.Why, Damages: r.Damages, DamagedBytes: r.DamagedBytes,
		Version: r.Version, Keys: r.Keys, Checkpoints: r.Checkpoints, Begin: r.Begin, Tail: r.Tail,
		Discarded: r.Discarded, Bytes: r.Bytes, Records: r.Records, Values: r.Values, Large: r.Large,
		Tombstones: r.Tombstones, Chunks: r.Chunks, Commits: r.Commits,
		LostChunks: r.LostChunks, LostValues: r.LostValues,
	}
}

func verifyStore(o *offline, args []string) (bool, error) {
	r, err := engine.Verify(engine.VerifyOptions{Dir: args[0], Progress: o.progress}, o.damage)
	if err != nil {
		return false, err
	}
	line := newVerifyLine(r)
	o.print(line, "version %d, %d keys; %d records in %d bytes of log verify; %d checkpoints are whole", r.Version, r.Keys, r.Records, r.Bytes, r.Checkpoints)
	if o.json {
		return r.Damages > 0, nil
	}
	if r.Discarded > 0 {
		o.print(line, "%d bytes behind the last commit were never committed", r.Discarded)
	}
	if r.LostValues > 0 {
		o.print(line, "%d large values, old versions among them, have lost %d chunks", r.LostValues, r.LostChunks)
	}
	switch {
	case r.Damages == 0:
		o.print(line, "no damage")
	case r.Opens:
		o.print(line, "%d stretches of damage, %d bytes of log; the store opens, and answers with an error where it meets them", r.Damages, r.DamagedBytes)
	default:
		o.print(line, "%d stretches of damage, %d bytes of log; the store does not open: %s", r.Damages, r.DamagedBytes, r.Why)
	}
	return r.Damages > 0, nil
}

type lostLine struct {
	Lost []byte `json:"lost"` // key, base64
	Addr int64  `json:"address"`
}

type salvageLine struct {
	Keys  int64      `json:"keys"`
	Lost  int        `json:"lost_keys"`
	More  int64      `json:"more"`
	Found verifyLine `json:"found"`
}

func salvageStore(o *offline, args []string) (bool, error) {
	cfg, err := daemon.Load(o.cmd.Flags(), os.Environ())
	if err != nil {
		return false, err
	}
	r, err := engine.Salvage(engine.VerifyOptions{Dir: args[0], Progress: o.progress},
		engine.Options{Dir: args[1], IO: ioring.Mode(cfg.IO), Memory: cfg.Memory}, o.damage)
	if err != nil {
		return false, err
	}
	for _, l := range r.Lost {
		o.print(lostLine{l.Key, l.Addr}, "lost: the newest value of key %q, at log 0x%x", l.Key, l.Addr)
	}
	line := salvageLine{r.Keys, len(r.Lost), r.More, newVerifyLine(r.Found)}
	o.print(line, "%d keys in %s; %d bytes of log were lost in %d stretches, and %d values", r.Keys, args[1], r.Found.DamagedBytes, r.Found.Damages, int64(len(r.Lost))+r.More)
	return r.Found.Damages > 0 || len(r.Lost) > 0, nil
}

type restoreLine struct {
	StoreID string    `json:"store_id"`
	Version uint64    `json:"version"`
	Time    time.Time `json:"time"`
	Keys    int64     `json:"keys"`
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
}

func restoreStore(o *offline, args []string) (_ bool, err error) {
	cfg, err := daemon.Load(o.cmd.Flags(), os.Environ())
	if err != nil {
		return false, err
	}
	in := &countingReader{o: o, in: o.cmd.InOrStdin()}
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return false, err
		}
		defer file.Close()
		in.in = file
		if st, err := file.Stat(); err == nil {
			in.total = st.Size()
		}
	}
	var info engine.BackupInfo
	if len(args) == 1 {
		info, err = engine.VerifyBackup(in)
	} else {
		info, err = engine.Restore(in, engine.Options{Dir: args[1], IO: ioring.Mode(cfg.IO)})
	}
	if errors.Is(err, engine.ErrBackup) {
		return false, &exit{exitDamage, err}
	}
	if err != nil {
		return false, err
	}
	digest := hex.EncodeToString(info.SHA256[:])
	o.print(restoreLine{hex.EncodeToString(info.StoreID[:]), info.Version, info.Time, info.Keys, info.Bytes, digest},
		"version %d of %s, %d keys; %d bytes, sha256 %s", info.Version, info.Time.Format(time.RFC3339), info.Keys, info.Bytes, digest)
	return false, nil
}

// countingReader shows how far a file has been read.
type countingReader struct {
	o           *offline
	in          io.Reader
	done, total int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.done += int64(n)
	c.o.progress(c.done, c.total)
	return n, err
}
