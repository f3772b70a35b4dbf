package engine

import (
	"errors"
	"fmt"
	"io/fs"

	"rskv/ioring"
)

// metaStream is a metadata file that is being written, from front to back.
type metaStream struct {
	out   ioring.MetaWriter
	name  string
	bytes int64 // written
}

func (s *Store) newMetaStream(name string) (metaStream, error) {
	out, err := s.dev.CreateMeta(name)
	if err != nil {
		return metaStream{}, fmt.Errorf("create %s: %w", name, err)
	}
	return metaStream{out: out, name: name}, nil
}

func (w *metaStream) write(b []byte) error {
	n, err := w.out.Write(b)
	w.bytes += int64(n)
	if err != nil {
		return fmt.Errorf("write %s: %w", w.name, err)
	}
	return nil
}

// commit gives the file its name: from here on it is there, and durable.
func (w *metaStream) commit() error {
	if err := w.out.Commit(); err != nil {
		return fmt.Errorf("commit %s: %w", w.name, err)
	}
	return nil
}

// abort removes what has been written. A commit that failed has done so already.
func (w *metaStream) abort() error {
	if err := w.out.Abort(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
