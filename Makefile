# Every task of the project; `make` alone lists them. All of them need Go, git
# and make only, except `race`, which needs a C compiler as well.

GO     ?= go
PREFIX ?= /usr/local
# More arguments for `go test`, e.g. make test TESTFLAGS='-count=1 -v'.
TESTFLAGS ?=
# More arguments for rskv-bench, e.g. make bench-quick BENCHFLAGS=--smoke.
BENCHFLAGS ?=
# How long `make soak` goes on, and where its plots go.
SOAK ?= 2m
SOAKPLOTS ?= bin/soak
# How long each part of `make load` goes on.
LOAD ?= 1m
# How long `make fuzz` tries each target.
FUZZTIME ?= 10s
# How many simulations `make sim` runs.
SEEDS ?= 500
# How long `make nightly` simulates.
NIGHTLY ?= 4h
# Which tests `make arm64` runs: all of them take an emulator some ten minutes.
ARM64TESTS ?= Test
# giouring, the io_uring binding, links only with the linker's name check off.
# Without these flags everything builds and runs too, on pread/pwrite.
RING := -tags giouring -ldflags=-checklinkname=0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
# The Python that has msgpack; Debian's python3-msgpack belongs to this one.
PYTHON ?= /usr/bin/python3
# What is linked besides: packages are built with STRIP='-s -w'.
STRIP ?=
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
# Of packages: the last tag, or a date and a commit.
VERSION ?= $(shell git describe --tags --match 'v*' 2>/dev/null | sed 's/^v//' | grep . || echo 0.0.$$(git log -1 --format=%cd --date=format:%Y%m%d%H%M)~$$(git log -1 --format=%h))
# What programs say they were built from; nothing without git.
COMMIT := $(shell git describe --always --abbrev=12 --dirty --exclude='*' 2>/dev/null)
STAMP = $(if $(COMMIT),-X rskv/ipc.release=$(VERSION) -X rskv/ipc.commit=$(COMMIT))
INTO = $(DESTDIR)$(PREFIX)
PROGRAMS := ./daemon/rskvd ./client/rskv ./bench/rskv-bench
# The daemon without counting for metrics: beside it, what that costs is measured.
NOMETRICS = CGO_ENABLED=0 $(GO) build -trimpath -tags giouring,nometrics -ldflags='-checklinkname=0 $(STAMP)' -o bin/rskvd-nometrics ./daemon/rskvd

.DEFAULT_GOAL := help
.PHONY: help build test test-portable race check workflows quality audit coverage tools dev pre-commit fuzz crash sim mutants arm64 trust-report nightly faults load soak python node run demo bench bench-quick bench-metrics bench-threads bench-concurrency docs share install package pack container clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

build: ## build bin/rskvd, bin/rskv and bin/rskv-bench (static)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -tags giouring -ldflags='-checklinkname=0 $(STAMP) $(STRIP)' -o bin/ $(PROGRAMS)

test: ## run all tests, with the io_uring backend linked in
	$(GO) test $(RING) -timeout 40m $(TESTFLAGS) ./...

race: ## run the short tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short $(RING) -timeout 40m $(TESTFLAGS) ./...

test-portable: ## the parts that have to work on every system: wire, client, daemon and store on pread/pwrite
	$(GO) build ./...
	$(GO) test -short -timeout 40m $(TESTFLAGS) ./ipc ./client/... ./ioring ./engine ./daemon/...

check: ## gofmt, vet (four ways), staticcheck, import arrows and repository shape
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./... ./.ci/report ./.ci/docs ./.ci/mutants
	$(GO) vet -tags giouring ./...
	GOOS=darwin $(GO) vet ./...
	GOARCH=arm64 $(GO) vet -tags giouring ./...
	$(GO) vet -tags docs ./daemon/rskvd ./client/rskv
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags giouring ./...
	$(GO) test -run TestShape -count=1 ./bench
	$(GO) run ./.ci/mutants -look

workflows: ## check .github/workflows
	$(GO) run $(ACTIONLINT) -color=false .github/workflows/*.yaml

quality: check workflows ## everything a change is looked at for, without its tests

audit: ## modules as they were published, known licences, and a reason for every unsafe
	$(GO) mod verify
	$(GO) test -count=1 -run TestAudit ./daemon/deploy

coverage: ## bin/coverage/index.html, and a table by package; engine, ioring and ipc need 85 %
	@mkdir -p bin/coverage
	$(GO) test $(RING) -short -timeout 20m -coverpkg=./... -coverprofile=bin/coverage/profile $(TESTFLAGS) ./engine/... ./ioring/... ./ipc ./client/... ./daemon/... >bin/coverage/log || { cat bin/coverage/log; exit 1; }
	$(GO) tool cover -html=bin/coverage/profile -o bin/coverage/index.html
	@.ci/coverage bin/coverage/profile 85 rskv/engine rskv/ioring rskv/ipc

tools: ## fetch and build what the other targets run besides Go
	for t in $(STATICCHECK) $(ACTIONLINT) $(NFPM); do $(GO) run $$t -version >/dev/null 2>&1 || $(GO) run $$t --version >/dev/null || exit 1; done

dev: build ## what to run while changing things: build, vet, and the short tests
	$(GO) vet ./...
	$(GO) test -short $(RING) -timeout 10m $(TESTFLAGS) ./...

pre-commit: check dev ## what to run before a commit

fuzz: ## run every fuzz target for FUZZTIME (10s), two at a time
	@GO="$(GO)" .ci/fuzz $(FUZZTIME)

run: build ## start a daemon in the foreground, in a temporary directory
	@.ci/try

python: build ## the tests of client/python, and its types if mypy is there (needs python3-msgpack)
	@$(PYTHON) -c 'import msgpack' 2>/dev/null || { echo "$(PYTHON) has no msgpack: apt-get install python3-msgpack, or make python PYTHON=..."; exit 1; }
	cd client/python && $(PYTHON) -m unittest $(PYTHONTESTS)
	@if command -v mypy >/dev/null; then cd client/python && mypy; else echo "types not checked: mypy is missing"; fi

node: build ## the tests of client/node, and its types (needs Node.js 20 and npm)
	@command -v npm >/dev/null || { echo "Node.js 20 and npm are missing: apt-get install nodejs npm"; exit 1; }
	cd client/node && node --test test/*.test.js
	cd client/node && npm ci --no-audit --no-fund && npm run -s types

crash: ## cut the power 2,000 times and kill the daemon 200 times, and compare what is recovered
	$(GO) test $(RING) -count=1 -timeout 20m -run TestCrash ./engine -crash.cuts 2000
	$(GO) test $(RING) -count=1 -timeout 20m -run TestKill$$ ./daemon/rskvd -v -kill.rounds 200

sim: ## run SEEDS (500) simulations of store, disk and clients, each with faults and crashes of its own
	$(GO) test -count=1 -timeout 12h -run 'TestSim$$' -v ./engine -sim.seeds $(SEEDS)

faults: ## cut the power of ext4 and XFS often, and fail every call of the disk, for a quarter of an hour (needs root, strace, xfsprogs, FUSE)
	$(GO) test $(RING) -count=1 -timeout 1h -v -run 'TestRealFault_|TestFault_SmallDisk' ./engine -power.cuts 25
	$(GO) test $(RING) -count=1 -timeout 1h -v -run 'TestFault_' ./daemon/rskvd

load: ## 10,000 connections: idle, active, deaf, vanishing, coming again and again, for LOAD (1m) each
	$(GO) test $(RING) -count=1 -timeout 24h -v -run 'TestLoad' ./daemon/rskvd -load.connections 10000 -load.time $(LOAD)

mutants: ## plant faults in the code, one at a time, and see that a test notices each
	$(GO) run ./.ci/mutants

# Left out is what shuts file systems down or fills them: qemu does not know the calls.
arm64: ## the engine's short tests as arm64 code, under qemu-user
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -short -count=1 -timeout 1h -exec $(or $(shell command -v qemu-aarch64-static || command -v qemu-aarch64),qemu-aarch64-static) $(TESTFLAGS) ./engine/internal/... ./engine -run '$(ARM64TESTS)' -skip 'TestRealFault_PowerCut|TestFault_SmallDisk'

trust-report: ## what the large tests count: seeds, cuts, kills, histories, flips, fuzzing, mutants
	@GO="$(GO)" .ci/trust

nightly: ## the same for hours: NIGHTLY (4h) of simulation, five minutes of each fuzz target, thousands of cuts and kills
	$(GO) test -count=1 -timeout 24h -run 'TestSim$$' -v ./engine -sim.seeds 0 -sim.time $(NIGHTLY)
	@GO="$(GO)" .ci/fuzz 5m
	$(GO) test $(RING) -count=1 -timeout 4h -run TestLinearizable -v ./client -linear.histories 2000
	$(GO) test $(RING) -count=1 -timeout 4h -run TestMetamorphic ./engine -metamorphic.seeds 200
	$(GO) test $(RING) -count=1 -timeout 12h -run TestCrash ./engine -crash.cuts 20000 -crash.flips 0
	$(GO) test $(RING) -count=1 -timeout 4h -run 'TestKill$$' ./daemon/rskvd -v -kill.rounds 1000
	$(MAKE) soak SOAK=30m
	$(MAKE) mutants

docs: ## bring the tables of daemon/OPERATIONS.md up to date, write the API reference to bin/docs, check all links
	$(GO) test ./daemon -count=1 -run TestOperations_Current -operations.update
	$(GO) run ./.ci/docs -o bin/docs

demo: build ## import a data set larger than the memory, compare, restart, compare again
	@GO="$(GO)" .ci/demo

# Reports of one run of make bench, in the order they are made.
REPORTS := $(patsubst %,bin/bench-%.json,quick run ycsb peers)

bench: build ## every figure, beside every peer, the page bin/bench.html and the tables in bench; about 25 minutes
	cd bench/peers && CGO_ENABLED=0 $(GO) build -trimpath $(RING) -o ../../bin/rskv-peers .
	bin/rskv-bench quick --json bin/bench-quick.json
	$(NOMETRICS)
	bin/rskv-bench run all --time 500ms --json bin/bench-run.json $(BENCHFLAGS)
	bin/rskv-bench ycsb --json bin/bench-ycsb.json
	bin/rskv-peers --time 500ms --json bin/bench-peers.json
	bin/rskv-bench report -o bin/bench.html $(REPORTS)
	bin/rskv-bench report --into bench/README.md $(REPORTS)
	bin/rskv-bench report --into bench/FIGURES.md --groups $(REPORTS)

soak: build ## update and delete for SOAK (2m) and watch disk, memory, index and throughput; plots in SOAKPLOTS
	bin/rskv-bench soak --time $(SOAK) --least 0.8 --plots $(SOAKPLOTS) $(BENCHFLAGS)

bench-quick: build ## the first figures beside redis-server and fio, in about four minutes
	bin/rskv-bench quick $(BENCHFLAGS)

bench-metrics: build ## what counting for metrics costs; it may be 2 %
	$(NOMETRICS)
	bin/rskv-bench run metrics $(BENCHFLAGS)

bench-threads: build ## 1 to 32 threads, with the efficiency of scaling
	bin/rskv-bench run threads $(BENCHFLAGS)

bench-concurrency: build ## 1 to 1000 goroutines, in process and on one connection
	bin/rskv-bench run concurrency $(BENCHFLAGS)

share: ## write manual pages and shell completions to bin/share
	@rm -rf bin/share && mkdir -p bin/share/completions
	env -u RSKV_SOCKET -u XDG_RUNTIME_DIR $(GO) run -tags docs ./daemon/rskvd man bin/share/man1
	env -u RSKV_SOCKET -u XDG_RUNTIME_DIR $(GO) run -tags docs ./client/rskv man bin/share/man1
	@for p in rskvd rskv; do for s in bash zsh fish; do bin/$$p completion $$s >bin/share/completions/$$p.$$s || exit 1; done; done

install: build share ## install programs, manual, completions and units into $(DESTDIR)$(PREFIX)
	install -d $(INTO)/bin $(INTO)/lib/systemd/system $(INTO)/lib/sysusers.d $(INTO)/lib/tmpfiles.d $(INTO)/share/man/man1 \
		$(INTO)/share/bash-completion/completions $(INTO)/share/zsh/site-functions $(INTO)/share/fish/vendor_completions.d $(DESTDIR)/etc/rskv
	install -m 755 $(addprefix bin/,$(notdir $(PROGRAMS))) $(INTO)/bin
	install -m 644 systemd/*.service systemd/*.socket $(INTO)/lib/systemd/system
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(INTO)/lib/systemd/system/rskvd*.service
	install -m 644 systemd/rskv-sysusers.conf $(INTO)/lib/sysusers.d/rskv.conf
	install -m 644 systemd/rskv-tmpfiles.conf $(INTO)/lib/tmpfiles.d/rskv.conf
	install -m 644 bin/share/man1/* $(INTO)/share/man/man1
	for p in rskvd rskv; do install -m 644 bin/share/completions/$$p.bash $(INTO)/share/bash-completion/completions/$$p && \
		install -m 644 bin/share/completions/$$p.zsh $(INTO)/share/zsh/site-functions/_$$p && \
		install -m 644 bin/share/completions/$$p.fish $(INTO)/share/fish/vendor_completions.d/$$p.fish || exit 1; done
	test -e $(DESTDIR)/etc/rskv/rskvd.toml || install -m 644 systemd/rskvd.toml $(DESTDIR)/etc/rskv/rskvd.toml

package: ## build bin/rskv_VERSION_ARCH.deb and .rpm
	@rm -rf bin/package && mkdir -p bin/package
	$(MAKE) -s install DESTDIR=bin/package/root PREFIX=/usr STRIP='-s -w'
	gzip -9nf bin/package/root/usr/share/man/man1/*.1
	$(MAKE) -s pack

pack: # packages of the tree that is there
	for p in deb rpm; do VERSION='$(VERSION)' ARCH=$$($(GO) env GOARCH) $(GO) run $(NFPM) package -f daemon/deploy/nfpm.yaml -p $$p -t bin/ || exit 1; done

container: ## the Debian package and its units under a real systemd (needs root, systemd-nspawn, debootstrap)
	@GO="$(GO)" .ci/container

clean: ## remove what build made
	rm -rf bin
