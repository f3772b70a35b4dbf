package hlog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPopulate: a page turn takes a frame that has no memory yet, although others
// have, or frames get lost where memory is fetched, taken and resized.
func TestPopulate(t *testing.T) {
	const pages = 12
	r := newRig(t, pages, 1, nil)
	free := func() int { return int(r.free.count.Load()) }
	require.Equal(t, pages-1, free())
	filled := 0
	for r.Populate() {
		filled++
	}
	require.Equal(t, populateAhead, filled)
	require.Equal(t, pages-1, free())
	require.Len(t, r.free.frames, populateAhead)

	taken := map[uintptr]bool{}
	for range populateAhead {
		taken[uintptr(r.free.take())] = true
	}
	require.Empty(t, r.free.frames)
	require.Len(t, r.free.fresh, pages-1-populateAhead)
	require.True(t, r.Populate())
	require.Len(t, taken, populateAhead)

	require.NoError(t, r.SetPages(pages-3))
	require.Len(t, r.free.frames, 1, "what has memory is given up last")
	require.Equal(t, pages-1-populateAhead-3, free())
	require.NoError(t, r.SetPages(pages+5))
	require.Equal(t, pages-1-populateAhead+5, free())
	all := map[uintptr]bool{}
	for p := r.free.take(); p != nil; p = r.free.take() {
		require.False(t, all[uintptr(p)] || taken[uintptr(p)], "a frame was given out twice")
		all[uintptr(p)] = true
	}
	require.Len(t, all, pages-1-populateAhead+5)
	require.False(t, r.Populate(), "there is nothing left to fill")
}
