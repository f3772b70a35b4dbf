// Package systemd holds the units under which the daemon runs as a service. It
// has no code but the test that systemd reads them, and that they restrict the
// daemon as far as they claim. README.md says how to use them; that they work is
// shown by .ci/container, under a real systemd.
package systemd
