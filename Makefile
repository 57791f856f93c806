# make demo   the whole product on this machine, with a first real backup
# make test   everything: generated files, lint, unit, integration, browser
# make chaos  kills by the hundred, and a check that no law was broken
#
# Needs Go, Node with npm, git, gcc and make; `make tools` brings the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

ifeq ($(HOME),)
export HOME := $(CURDIR)/.cache/home
endif

GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION     := v1.13.0
# Must be the driver version that go.mod's playwright-go speaks.
PLAYWRIGHT_VERSION    := 1.52.0
PLAYWRIGHT_SHA256     := 4426ed32575cba6adf394e297a0e845eba2887dee776c4acee1d178e00f990f7
AXE_VERSION           := 4.14.1
AXE_SHA256            := e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

BIN        := $(CURDIR)/bin
STAMPS     := .cache/stamps
GO_STATIC  := CGO_ENABLED=0 go build -trimpath -buildvcs=false
SHA256SUM  := $(shell command -v sha256sum || echo shasum -a 256)
GENERATED   = find views handlers static/dist -name '*_templ.go' -o -path 'static/dist/*' -type f
CHECKSUMS   = { $(GENERATED); } 2>/dev/null | LC_ALL=C sort | xargs -r $(SHA256SUM)
UNIT_PKGS   = $(shell go list ./... | grep -v -e /node_modules/ -e '^resticfleet/e2e')

# Tests take the pinned restic and rest-server, and the browser driver, from here.
export PATH := $(BIN):$(PATH)
export PLAYWRIGHT_DRIVER_PATH := $(BIN)/playwright
export PLAYWRIGHT_NODEJS_PATH := $(shell command -v node)

.PHONY: all tools generate lint test e2e chaos demo build bench clean
all: build

# --- tools ------------------------------------------------------------------

RESTIC_STAMP  := $(STAMPS)/restic-$(shell cat tools.mod tools.sum | $(SHA256SUM) | cut -c1-12)
LINT_STAMP    := $(STAMPS)/golangci-lint-$(GOLANGCI_LINT_VERSION)
TESTSUM_STAMP := $(STAMPS)/gotestsum-$(GOTESTSUM_VERSION)
DRIVER_STAMP  := $(STAMPS)/playwright-$(PLAYWRIGHT_VERSION)
AXE_STAMP     := $(STAMPS)/axe-$(AXE_VERSION)

# The packages and the downloads wait for the network, the builds for the
# processors: side by side they cost little more than the builds alone.
tools:
	@$(MAKE) --no-print-directory -j3 --output-sync=target .system-packages $(STAMPS)/headless-shell \
		$(RESTIC_STAMP) $(LINT_STAMP) $(TESTSUM_STAMP) $(DRIVER_STAMP) $(AXE_STAMP)

# A stamp says which version was built; the file itself may have been deleted.
ifeq ($(wildcard bin/restic),)
.PHONY: $(RESTIC_STAMP)
endif
ifeq ($(wildcard bin/rest-server),)
.PHONY: $(RESTIC_STAMP)
endif
ifeq ($(wildcard bin/golangci-lint),)
.PHONY: $(LINT_STAMP)
endif
ifeq ($(wildcard bin/gotestsum),)
.PHONY: $(TESTSUM_STAMP)
endif
ifeq ($(wildcard bin/playwright/package/cli.js),)
.PHONY: $(DRIVER_STAMP)
endif
ifeq ($(wildcard bin/axe.min.js),)
.PHONY: $(AXE_STAMP)
endif

$(RESTIC_STAMP):
	@mkdir -p bin $(@D)
	$(GO_STATIC) -modfile=tools.mod -mod=readonly -ldflags='-s -w' -o bin/ \
		github.com/restic/restic/cmd/restic github.com/restic/rest-server/cmd/rest-server
	@touch $@

$(LINT_STAMP):
	@mkdir -p bin $(@D)
	CGO_ENABLED=0 GOBIN=$(BIN) go install -trimpath -ldflags='-s -w' \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

$(TESTSUM_STAMP):
	@mkdir -p bin $(@D)
	CGO_ENABLED=0 GOBIN=$(BIN) go install -trimpath -ldflags='-s -w' \
		gotest.tools/gotestsum@$(GOTESTSUM_VERSION)
	@touch $@

# fetch-npm,NAME,VERSION,SHA256: a package's tarball as .cache/npm/NAME-VERSION.tgz
define fetch-npm
	@mkdir -p bin $(@D) .cache/npm
	cd .cache/npm && npm pack --silent $(1)@$(2) >/dev/null && \
		echo "$(3)  $(1)-$(2).tgz" | $(SHA256SUM) -c - >/dev/null
endef

# The driver's own installer wants a host that mirrors seldom carry; the npm
# package is the same program without a Node of its own.
$(DRIVER_STAMP):
	$(call fetch-npm,playwright-core,$(PLAYWRIGHT_VERSION),$(PLAYWRIGHT_SHA256))
	rm -rf bin/playwright && mkdir -p bin/playwright
	tar -xzf .cache/npm/playwright-core-$(PLAYWRIGHT_VERSION).tgz -C bin/playwright
	@touch $@

$(AXE_STAMP):
	$(call fetch-npm,axe-core,$(AXE_VERSION),$(AXE_SHA256))
	tar -xzOf .cache/npm/axe-core-$(AXE_VERSION).tgz package/axe.min.js > bin/axe.min.js
	@touch $@

# PostgreSQL's server programs and a browser come from the system. Debian would
# start a PostgreSQL cluster right after the installation: a drop-in that lives
# only as long as this recipe prevents it, Resticfleet starts its own.
.PHONY: .system-packages
.system-packages:
	@need=; \
	have_postgres=; \
	for dir in "$${RESTICFLEET_PG_BINDIR:-}" $${PATH//:/ } /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin; do \
		if [ -x "$$dir/initdb" ] && [ -x "$$dir/postgres" ]; then have_postgres=yes; break; fi; done; \
	[ -n "$$have_postgres" ] || need="postgresql"; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		command -v google-chrome >/dev/null || need="$$need chromium fonts-liberation"; \
	[ -n "$$need" ] || exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "make tools: missing from this machine: $$need." >&2; \
		echo "Install them with the system's package manager (Debian: sudo apt-get install --no-install-recommends $$need)," >&2; \
		echo "or run make tools as root on Debian, and then again." >&2; exit 1; fi; \
	echo "Installing with apt-get:$$need"; \
	drop_in=/etc/postgresql-common/createcluster.d/resticfleet-tools.conf; \
	mkdir -p "$${drop_in%/*}"; trap 'rm -f "$$drop_in"' EXIT; \
	echo "create_main_cluster = false" > "$$drop_in"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends $$need >/dev/null

# The browser's engine without the machinery of its windows: a fifth less work
# for the browser tests. Asked for once, and done without where it isn't to be had.
$(STAMPS)/headless-shell: | .system-packages
	@mkdir -p $(@D)
	@command -v chromium-headless-shell >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends chromium-headless-shell; } >/dev/null 2>&1 || \
		echo "make tools: no chromium-headless-shell from apt-get; the browser tests take the whole chromium."
	@touch $@

# --- generate and lint --------------------------------------------------------

STATIC_INPUTS = $(shell find static -maxdepth 1 -type f \( -name 'package*.json' -o -name '*.js' -o -name '*.mjs' \) 2>/dev/null) \
	$(shell find static/src views -type f \( -path 'static/src/*' -o -name '*.templ' \) 2>/dev/null)

generate: $(STAMPS)/static
	cd views && go tool templ generate

# What the browser gets depends on the words used in views, too: Tailwind reads
# them. The outputs are committed, so that building the product needs no Node.
# npm ci insists on lock entries for platforms whose packages a registry may not
# serve; install keeps to the same versions and checksums, and writes no lock.
$(STAMPS)/static: $(STATIC_INPUTS)
	@mkdir -p $(@D)
	cd static && npm install --no-save --no-audit --no-fund --silent && npm run --silent build
	@touch $@

# Generating must change nothing: in a clean clone that means that what is
# committed is what the sources say.
lint:
	@mkdir -p .cache
	@$(CHECKSUMS) > .cache/generated.before
	@$(MAKE) --no-print-directory generate
	@$(CHECKSUMS) > .cache/generated.after
	@diff .cache/generated.before .cache/generated.after || { \
		echo "make lint: the files above were not what their sources generate; they are now. Commit them." >&2; exit 1; }
	$(BIN)/golangci-lint run ./...
	$(BIN)/golangci-lint fmt --diff

# --- build --------------------------------------------------------------------

# Always asked for: go build knows best what is up to date.
build:
	$(GO_STATIC) -ldflags='-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/resticfleet ./cmd/resticfleet-agent

demo: $(RESTIC_STAMP) .system-packages build
	bin/resticfleet demo

# --- test ---------------------------------------------------------------------

# Many tests wait for a clock or a process of theirs: more at a time than there
# are processors.
test: tools
	@$(MAKE) --no-print-directory lint
	@mkdir -p test-results
	$(BIN)/gotestsum --format pkgname --format-hide-empty-pkg --junitfile test-results/junit.xml -- \
		-race -timeout 15m -parallel 8 $(UNIT_PKGS)
	@$(MAKE) --no-print-directory e2e

# With E2E_BASE_URL, E2E_USER and E2E_PASSWORD against that server; otherwise
# against the binaries just built. Traces and logs of failures: e2e/results.
e2e: tools build
	@rm -rf e2e/results && mkdir -p e2e/results
	E2E_BIN=$(BIN) $(BIN)/gotestsum --format testname --junitfile e2e/results/junit.xml -- \
		-race -count=1 -timeout 15m -parallel 6 ./e2e/...

# Kills by the plan of a seed, beside the tables of faults and failpoints; a
# short run of all this is part of e2e. 0 draws a seed and prints it.
CHAOS_KILLS ?= 200
CHAOS_SEED  ?= 0

chaos: $(RESTIC_STAMP) .system-packages
	go test -count=1 -timeout 60m -parallel 6 -v ./e2e/chaos -chaos.seed=$(CHAOS_SEED) -chaos.kills=$(CHAOS_KILLS)

bench: $(RESTIC_STAMP) build
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m $(UNIT_PKGS) ./e2e/...

clean:
	rm -rf bin .cache test-results e2e/results
