//go:build !race

package engine

// raceEnabled: see race_on_test.go.
const raceEnabled = false

// heapPages is 1 where the store's pages and index are on the heap.
const heapPages = 0
