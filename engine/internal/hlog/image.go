package hlog

import (
	"unsafe"

	"rskv/engine/internal/record"
)

// An image is a copy of what is mutable, so that a commit need not make it immutable:
//
//	flushed as ever | frozen, to be copied | copied, mutable again |
//	----------------+----------------------+-----------------------+------+
//	                ^                      ^                       ^      ^
//	                readOnly -->       <-- frozen                  end    tail
//
// CutImage ends a group like Cut, but leaves readOnly where it is, and freezes what
// lies below the group's end: who writes treats it as if readOnly were there. So the
// bytes of the group stand still while Image copies them, page by page, from the end
// downwards. Thaw lets what has been copied be updated in place again. What readOnly
// passes from below meanwhile goes to the device as it stands: where the two meet, the
// image begins.
//
// The marker is moved behind the closed door, so all writers of a moment agree on it:
// else one could be copying a record while another updates it in place. What is below
// it is no less mutable for all others: a record that was seen there may look different
// after the section.
// (The snapshot kind of checkpoints, FASTER, SIGMOD 2018, section 6.3, without its
// fuzzy region.)

// CutImage is Cut for a commit that is not the log's but an image's.
func (l *Log) CutImage(head []byte, more int) (rec, end record.Addr, ok bool) {
	if rec, end, ok = l.endGroup(head, more); !ok {
		return 0, 0, false
	}
	l.frozen.Store(uint64(end))
	return rec, end, true
}

// FinishImage is FinishCut after CutImage. It is owed in any case.
func (l *Log) FinishImage(rec record.Addr, skip int, rest []byte) {
	copy(record.Bytes(l.Pointer(rec), record.HeaderSize+skip, len(rest)), rest)
	l.unfinished.Store(false)
	if l.raiseSafe() {
		l.wake()
	}
}

// Frozen is the address below which nobody begins to update in place while an image is
// made, else 0.
func (l *Log) Frozen() record.Addr { return record.Addr(l.frozen.Load()) }

// Thaw lets what lies at an address or above be updated in place again; with 0 all. It
// runs as the action of the closed door.
func (l *Log) Thaw(from record.Addr) { l.frozen.Store(uint64(from)) }

// Image copies what lies in the page before an address into dst, up to that, but nothing
// that is immutable already, and returns where it begins. The address is the border of a
// record at Frozen or below. The caller is in a section.
func (l *Log) Image(dst []byte, until record.Addr) (from record.Addr) {
	from = max((until-1)&^l.unitMask, l.ReadOnly())
	if from >= until {
		return until
	}
	// The flusher may be sealing the same page by now.
	record.CopyOut(unsafe.Pointer(unsafe.SliceData(dst)), l.Pointer(from), int(until-from)*record.Unit)
	return from
}

// SealImage puts the checksums into the records that Image has copied from an address
// on: then they are as they would be on the device.
func (l *Log) SealImage(image []byte, from record.Addr) {
	for at := 0; at < len(image); {
		record.Unmark(image[at:])
		at += record.Seal(unsafe.Pointer(&image[at]), l.seed, from+record.Addr(at/record.Unit))
	}
}
