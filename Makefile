# The commands of this repository. README.md tells when to use which.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO_TOOL  = go tool -modfile=.ci/tools/go.mod
MODULES  = . .ci/tools test/kit/alertmanager/server test/kit/controlplane/server test/kit/controlplane/oldest test/kit/helm/server test/kit/prometheus/server

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/sentinel-gate
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/sentinel-gate ./cmd/sentinel-gate

.PHONY: demo
demo: ## watch two gates live through a minute; with REAL=1 on a real control plane and a real Prometheus
	@echo "Compiling the daemon and the demo. The first time this takes some minutes; each line is a package."
	@# In one go and with the flags of build, so that nothing is compiled twice.
	@CGO_ENABLED=0 go build -v -trimpath -ldflags '-s -w' -o bin/demo/ ./cmd/sentinel-gate ./test/demo$(if $(REAL),/real)
	@bin/demo/$(if $(REAL),real,demo) bin/demo/sentinel-gate

# The packages whose tests mostly need no server. With -short the others among them skip, and say so.
UNIT = ./gate/... ./checks/... ./cmd/... ./test/kit/... ./test/alerts ./test/docs

.PHONY: check
check: ## the fast loop: format, vet, lint, and the tests that need no server (under a minute)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target format vet golangci unit

.PHONY: test
test: ## everything: lint, unit tests, tests against real servers, fuzzing (about a quarter of an hour)
	@# One after the other: beside the linters, suites with deadlines of a second fail on two cores.
	@$(MAKE) --no-print-directory lint
	go run ./test/kit/servers
	@$(MAKE) --no-print-directory suites
	.ci/fuzz 3s

# What takes longest begins first. Without GORACE every process would sleep for a second before it exits.
.PHONY: suites
suites:
	GORACE=atexit_sleep_ms=0 go test -race -count=1 -timeout 30m ./test/faults ./test/docs ./test/chart ./checks ./test/chaos ./...

.PHONY: unit
unit:
	go test -short $(UNIT)

.PHONY: generate
generate: ## make what is made from the types of check: schema, permissions, lists
	go test -count=1 ./cmd/sentinel-gate -run '^TestGenerated$$' -update

.PHONY: e2e
e2e: ## a rollout from end to end: three real nodes and a kured (root; about 10 minutes)
	@# With -v it says why it skips, and what it measured.
	SENTINEL_GATE_E2E=1 go test -v -count=1 -timeout 60m ./test/e2e

.PHONY: lint
lint: format vet golangci ## vet, golangci-lint, govulncheck, shellcheck, formatting, tidy modules
	@for module in $(MODULES); do (cd $$module && go mod tidy -diff) || { echo "run go mod tidy in $$module"; exit 1; }; done
	@# With the flags of its build, so that Kubernetes is compiled once.
	cd test/kit/controlplane/server && CGO_ENABLED=0 go vet -trimpath ./...
	.ci/vulncheck
	shellcheck .ci/run .ci/vulncheck .ci/fuzz deploy/node/bring-into-line.sh deploy/node/sentinel-gate-packages deploy/node/rhel/sentinel-gate-reboot-required

.PHONY: format
format:
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "run gofmt -w on:" $$unformatted; exit 1; fi

.PHONY: vet
vet:
	go vet ./...

.PHONY: golangci
golangci:
	$(GO_TOOL) golangci-lint run --allow-parallel-runners ./...

.PHONY: bench
bench: ## measure; prints the table of docs/benchmarks.md (about 45 minutes)
	go build -o bin/sentinel-gate-bench ./test/bench
	bin/sentinel-gate-bench

.PHONY: chaos
chaos: ## 20 daemons through twice 200 reboots and faults, watched, and the turn's figures (about two hours)
	go test -race -count=1 -timeout 2h -v ./test/chaos -run 'TestChaos$$' -args -daemons 20 -reboots 200 $(if $(SEED),-seed $(SEED))
	go test -race -count=1 -timeout 2h -v ./test/chaos -run TestChaosWithExposure -args -daemons 20 -reboots 200 $(if $(SEED),-seed $(SEED))
	go test -count=1 -timeout 1h -v ./test/chaos -run TestFigures -args -figures

.PHONY: day
day: ## ten gates through a day's watches, restarts, halts and tokens, in an hour
	go test -count=1 -timeout 90m -v ./test/day -args -long 60m

.PHONY: fuzz
fuzz: ## fuzz each target for ten seconds, two at a time
	.ci/fuzz 10s

.PHONY: clean
clean: ## remove bin
	rm -rf bin
