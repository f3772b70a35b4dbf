package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestComplete: Tab offers a value that the daemon refuses, or files where there
// are none.
func TestComplete(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--io": "auto\nuring\nsync\n:4\n", "--preset": "default\nhigh-performance\nlow-memory\n:4\n", "--config": ":0\n",
	} {
		out, errs, code := output(t, "__completeNoDesc", flag, "")
		require.Zero(t, code, errs)
		require.Equal(t, want, out, flag)
	}
	out, _, _ := output(t, "__completeNoDesc", "verify", "")
	require.Equal(t, ":0\n", out, "a directory")
}
