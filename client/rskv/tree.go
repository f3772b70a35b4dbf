package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"rskv/ipc"
)

// tree is a directory as a source: each regular file is a pair, its path below
// root, with slashes, the key. Symbolic links are followed, to files and to
// directories; a directory that contains itself that way is entered once.
type tree struct {
	root    string
	prefix  []byte // put before every key
	content bool   // read the files; without, values are nil

	seen  atomic.Int64 // files handed out; read by the progress line
	files atomic.Int64 // files there are, -1 until counted
	once  sync.Once
}

// errNotRegular: neither a file nor a directory, or a link that leads nowhere.
var errNotRegular = errors.New("not a regular file")

// total returns how many files there are. The first call starts counting and
// returns -1, as do the following until it is done.
func (t *tree) total() int64 {
	t.once.Do(func() {
		t.files.Store(-1)
		go func() {
			var n int64
			t.walk(func(string, string, error) bool { n++; return true })
			t.files.Store(n)
		}()
	})
	return t.files.Load()
}

// pairs hands out the files in the order of their names.
func (t *tree) pairs(yield func(pair, error) bool) {
	t.walk(func(file, relative string, err error) bool {
		t.seen.Add(1)
		if err != nil {
			return yield(pair{}, &itemError{file, plain(err)})
		}
		p := pair{key: append(append([]byte(nil), t.prefix...), relative...)}
		if t.content {
			if p.value, err = readFile(file); err != nil {
				return yield(pair{}, &itemError{file, plain(err)})
			}
		}
		return yield(p, nil)
	})
}

// walk calls visit for every file, with its path and its slashed path below
// root, or with the error that kept it from being one. It ends when visit
// returns false.
func (t *tree) walk(visit func(file, relative string, err error) bool) {
	info, err := os.Stat(t.root)
	if err != nil {
		visit(t.root, "", err)
		return
	}
	t.directory(t.root, "", []os.FileInfo{info}, visit)
}

// directory walks one directory. above holds it and those that contain it.
func (t *tree) directory(dir, relative string, above []os.FileInfo, visit func(string, string, error) bool) bool {
	entries, err := os.ReadDir(dir)
	if err != nil && !visit(dir, relative, err) {
		return false
	}
	for _, entry := range entries {
		file, name := filepath.Join(dir, entry.Name()), relative+entry.Name()
		info, err := os.Stat(file)
		switch {
		case err != nil:
			if !visit(file, name, err) {
				return false
			}
		case info.IsDir():
			if !contains(above, info) && !t.directory(file, name+"/", append(above[:len(above):len(above)], info), visit) {
				return false
			}
		default:
			if !info.Mode().IsRegular() {
				err = errNotRegular
			}
			if !visit(file, name, err) {
				return false
			}
		}
	}
	return true
}

func contains(above []os.FileInfo, dir os.FileInfo) bool {
	for _, a := range above {
		if os.SameFile(a, dir) {
			return true
		}
	}
	return false
}

// readFile reads a file of at most the protocol's longest value. Its size is
// looked at first, and once more while reading, for it may grow.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular // replaced since the directory was read
	}
	if info.Size() > ipc.MaxValue {
		return nil, fmt.Errorf("%d bytes, more than a value may have (%d)", info.Size(), ipc.MaxValue)
	}
	return readValue(f, info.Size())
}

// readValue reads a value of at most the protocol's limit; size is a guess.
func readValue(r io.Reader, size int64) ([]byte, error) {
	value := make([]byte, 0, size+512)
	limited := io.LimitReader(r, ipc.MaxValue+1)
	for {
		n, err := limited.Read(value[len(value):cap(value)])
		value = value[:len(value)+n]
		if len(value) > ipc.MaxValue {
			return nil, fmt.Errorf("more bytes than a value may have (%d)", ipc.MaxValue)
		}
		if err == io.EOF {
			return value, nil
		}
		if err != nil {
			return nil, err
		}
		if len(value) == cap(value) {
			value = append(value, 0)[:len(value)]
		}
	}
}

// plain returns the cause of a path error, whose path is named anyway.
func plain(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
