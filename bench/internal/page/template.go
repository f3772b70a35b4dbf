package page

import "html/template"

// parsed is the page. Everything it needs is in it.
var parsed = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>
:root { --ink:#1b2026; --soft:#5b6672; --rule:#d8dde3; --paper:#fff; --card:#f6f8fa; --bad:#b3261e; --good:#1a7f37;
  --k0:#1f6feb; --k1:#d9730d; --k2:#1a7f37; --k3:#8250df; --k4:#bf3989; --k5:#0a8f8f; --k6:#7d5b00; --k7:#57606a }
@media (prefers-color-scheme: dark) { :root { --ink:#e6edf3; --soft:#9aa6b2; --rule:#30363d; --paper:#0d1117; --card:#161b22;
  --bad:#ff7b72; --good:#56d364; --k0:#58a6ff; --k1:#ffa657; --k2:#56d364; --k3:#bc8cff; --k4:#f778ba; --k5:#39c5cf; --k6:#e3b341; --k7:#8b949e } }
body { font:15px/1.5 system-ui,sans-serif; color:var(--ink); background:var(--paper); max-width:1200px; margin:2em auto; padding:0 1.5em }
h1 { font-size:1.6em } h2 { font-size:1.2em; margin:2.2em 0 .4em; border-top:1px solid var(--rule); padding-top:.8em }
nav a { margin-right:1.2em; white-space:nowrap } a { color:var(--k0) }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.1em 1em; margin:.6em 0 1.4em } dt { color:var(--soft) } dd { margin:0 }
.wide { overflow-x:auto } table { border-collapse:collapse; font-size:.88em; font-variant-numeric:tabular-nums }
td { white-space:nowrap } td.words { white-space:normal }
th,td { padding:.22em .7em; text-align:right; border-bottom:1px solid var(--rule); vertical-align:top } th { color:var(--soft); font-weight:600 }
th:first-child,td:first-child,td.words { text-align:left } td.words { min-width:14em; max-width:30em }
tr.missed td:last-child,tr.bad td { color:var(--bad) } tr.met td:last-child { color:var(--good) } tr.none td { color:var(--soft) }
summary { color:var(--soft); font-size:.88em; cursor:pointer } ul { color:var(--soft); font-size:.88em; margin:.5em 0; padding-left:1.2em } code { font-size:.92em; overflow-wrap:anywhere }
.plots { display:flex; flex-wrap:wrap; align-items:flex-start; gap:1em; margin:.8em 0 } svg { background:var(--card); border-radius:6px; padding:6px; max-width:100%; height:auto }
svg text { font:12px system-ui,sans-serif; fill:var(--soft) } svg .title { font-weight:600; fill:var(--ink) }
.grid { stroke:var(--rule); stroke-width:1 } .axis { stroke:var(--soft) } .whisker { stroke:var(--ink); stroke-width:1.5; opacity:.6 } .target { stroke:var(--bad); stroke-width:2 }
.line { fill:none; stroke-width:1.8; stroke:currentColor } .dot,.fill { fill:currentColor } 
.c0 { color:var(--k0) } .c1 { color:var(--k1) } .c2 { color:var(--k2) } .c3 { color:var(--k3) } .c4 { color:var(--k4) } .c5 { color:var(--k5) } .c6 { color:var(--k6) } .c7 { color:var(--k7) }
</style></head><body>
<h1>{{.Title}}</h1>
{{range .Reports}}<dl>
<dt>measured</dt><dd>{{.Date.Format "2006-01-02 15:04 MST"}}, medians of {{.Rounds}} interleaved rounds</dd>
<dt>machine</dt><dd>{{.Machine.Processor}}, {{.Machine.Cores}} cores, {{.Machine.Memory}}, {{.Machine.System}}, {{.Machine.Go}}</dd>
{{with .Machine.Load}}<dt>load before</dt><dd>{{.}}</dd>{{end}}
<dt>commit</dt><dd>{{with .Commit}}<code>{{.}}</code>{{else}}not known{{end}}</dd>
<dt>command</dt><dd><code>{{.CommandLine}}</code></dd></dl>
{{end}}<nav>{{range .Groups}}<a href="#{{.ID}}">{{.Name}}</a> {{end}}{{if .Claims}}<a href="#trend">trend</a>{{end}}</nav>
{{range .Groups}}<section id="{{.ID}}"><h2>{{.Name}}</h2>
<div class="plots">{{range .Plots}}{{.}}{{end}}</div>
<div class="wide"><table>{{$s := .Shows}}<tr><th></th><th>median</th><th>least - most</th><th>unit</th>{{if $s.Hit}}<th>hit</th>{{end}}{{if $s.Cold}}<th>cold</th>{{end}}<th>commit</th>{{if $s.P50}}<th>p50 us</th>{{end}}{{if $s.P99}}<th>p99 us</th>{{end}}{{if $s.P999}}<th>p99.9 us</th>{{end}}{{if $s.P9999}}<th>p99.99 us</th>{{end}}{{if $s.CPU}}<th>CPU us/op</th>{{end}}{{if $s.Efficiency}}<th>efficiency</th>{{end}}{{if $s.Ratio}}<th>ratio</th>{{end}}{{if $s.Target}}<th>target</th>{{end}}</tr>
{{range .Rows}}<tr class="{{.Class}}"><td>{{.Name}}</td><td>{{.Rate}}</td><td>{{.Spread}}</td><td>{{.Unit}}</td>{{if $s.Hit}}<td>{{.Hit}}</td>{{end}}{{if $s.Cold}}<td>{{.Cold}}</td>{{end}}<td>{{.Commit}}</td>{{if $s.P50}}<td>{{.P50}}</td>{{end}}{{if $s.P99}}<td>{{.P99}}</td>{{end}}{{if $s.P999}}<td>{{.P999}}</td>{{end}}{{if $s.P9999}}<td>{{.P9999}}</td>{{end}}{{if $s.CPU}}<td>{{.CPU}}</td>{{end}}{{if $s.Efficiency}}<td>{{.Efficiency}}</td>{{end}}{{if $s.Ratio}}<td class="words">{{.Ratio}}</td>{{end}}{{if $s.Target}}<td>{{.Target}}</td>{{end}}</tr>
{{end}}</table></div>
<ul>{{range .Settings}}<li>{{.}}</li>{{end}}</ul>
{{if .Notes}}<details><summary>{{len .Notes}} notes</summary><ul>{{range .Notes}}<li>{{.}}</li>{{end}}</ul></details>{{end}}</section>
{{end}}{{if .Claims}}<section id="trend"><h2>Trend</h2>
<div class="wide"><table><tr><th>date</th><th>commit</th><th>load before</th><th>claim</th></tr>
{{range .Claims}}<tr><td>{{.Date}}</td><td><code>{{.Commit}}</code></td><td>{{.Load}}</td><td class="words">{{.Claim}}</td></tr>{{end}}</table></div>
<div class="plots">{{range .Trend}}{{.}}{{end}}</div></section>{{end}}
<p><small>Made {{.Made}} by rskv-bench report.</small></p>
</body></html>
`))
