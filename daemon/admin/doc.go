// Package admin is a daemon's door for its operators: HTTP on a Unix socket that
// only the daemon's user and root may open, and, where asked for, on a loopback
// address.
//
//	                     +--------------- Handler ----------------+
//	Unix socket, 0600 -->| /metrics /status /livez /readyz  /     |--> Source
//	                     | /debug/pprof/                          |
//	127.0.0.1:9510 ----->| the same without /debug/pprof/         |
//	                     +----------------------------------------+
//
// It knows nothing of what it shows: a Source gives families of metrics, a
// status and two answers about health, and this package says them in the text
// format of Prometheus, in JSON, by status codes, and as a page that draws the
// store (page.html, which needs no other file and no network).
//
// Guarantees:
//   - Nothing here changes anything: every path answers GET and HEAD only.
//   - A slow or silent reader costs one goroutine for readTimeout or writeTimeout
//     and no more than connectionsMax of them; the daemon's clients do not feel it.
//   - On the loopback address only requests that name a loopback host are
//     answered, so that a web page cannot reach it by a name of its own.
//
// Read server.go first, then metric.go.
package admin
