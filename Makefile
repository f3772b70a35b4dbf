# Every task of the project; `make` alone lists them. All of them need Go, git
# and make only, except `race`, which needs a C compiler as well.

GO     ?= go
PREFIX ?= /usr/local
# More arguments for `go test`, e.g. make test TESTFLAGS='-count=1 -v'.
TESTFLAGS ?=
# More arguments for rskv-bench, e.g. make bench-quick BENCHFLAGS=--smoke.
BENCHFLAGS ?=
# giouring, the io_uring binding, links only with the linker's name check off.
# Without these flags everything builds and runs too, on pread/pwrite.
RING := -tags giouring -ldflags=-checklinkname=0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROGRAMS := ./daemon/rskvd ./client/rskv ./bench/rskv-bench

.DEFAULT_GOAL := help
.PHONY: help build test race check fuzz crash run demo bench-quick install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

build: ## build bin/rskvd, bin/rskv and bin/rskv-bench (static)
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath $(RING) -o bin/ $(PROGRAMS)

test: ## run all tests, with the io_uring backend linked in
	$(GO) test $(RING) -timeout 20m $(TESTFLAGS) ./...

race: ## run the short tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short $(RING) -timeout 20m $(TESTFLAGS) ./...

check: ## gofmt, vet (four ways), staticcheck, import arrows and repository shape
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./... ./.ci/report
	$(GO) vet -tags giouring ./...
	GOOS=darwin $(GO) vet ./...
	GOARCH=arm64 $(GO) vet -tags giouring ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags giouring ./...
	$(GO) test -run TestShape -count=1 ./bench

fuzz: ## run every fuzz target for ten seconds
	@GO="$(GO)" .ci/fuzz 10s

run: build ## start a daemon in the foreground, in a temporary directory
	@.ci/try

crash: ## cut the power 2,000 times and kill the daemon 200 times, and compare what is recovered
	$(GO) test $(RING) -count=1 -timeout 20m -run TestCrash ./engine -crash.cuts 2000
	$(GO) test $(RING) -count=1 -timeout 20m -run TestKill$$ ./daemon/rskvd -v -kill.rounds 200

demo: build ## import a data set larger than the memory, compare, restart, compare again
	@GO="$(GO)" .ci/demo

bench-quick: build ## the first figures beside redis-server and fio, in about three minutes
	bin/rskv-bench quick $(BENCHFLAGS)

install: build ## install the programs into $(DESTDIR)$(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix bin/,$(notdir $(PROGRAMS))) $(DESTDIR)$(PREFIX)/bin

clean: ## remove what build made
	rm -rf bin
