//go:build race

package engine

// raceEnabled: the race detector makes everything ten times as slow.
const raceEnabled = true

// heapPages is 1 where the store's pages and index are on the heap.
const heapPages = 1
