// Package deploy holds the files with which the daemon is run elsewhere than as
// a program in a terminal or a unit of systemd. It has no code but the test that
// every file is read by what it is for, and names only what there is.
//
//	nfpm.yaml              the Debian and RPM packages; scripts/ runs at their install
//	Containerfile          an image with nothing in it but the daemon
//	compose.yaml           the daemon beside a program, for docker compose
//	kubernetes.yaml        the same as a native sidecar
//	seccomp.json           the default profile of containers, with io_uring
//	grafana.json           a dashboard of /metrics
//
// The units of systemd are in systemd/ at the top of the repository.
package deploy
