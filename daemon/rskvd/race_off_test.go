//go:build !race

package main

// raceEnabled: the race detector takes time and memory of its own.
const raceEnabled = false
