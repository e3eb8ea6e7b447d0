# `make help` lists the targets.
SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help quickstart install test check bench fuzz chaos crds coverage transcripts doc tools build

CARGO ?= cargo
# Seconds for each target of `make fuzz`, and of `make chaos`.
SECS ?= 60
CHAOS_SECS ?= 900
# Pairs of the last part of `make bench`.
PAIRS ?= 160000
# Where the faults of `make chaos` start; by the clock when empty.
SEED ?=
# Which faults alone, for example kill,kill-holder; all when empty.
FAULTS ?=
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/isthmus
DENY_VERSION := 0.20.2
DENY := $(CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Everything is built with the same selection of crates, because another selection means other
# features of shared libraries, and those would be compiled twice.
ALL := --workspace

help: ## Lists the targets.
	@echo "Targets, with their times on 2 cores:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

quickstart: ## Shows presence and messages between Prosody and Kamailio; REDIS=1 with three gateways; ONCE=1 ends with 0 or 1. 10 min cold, 30 s warm.
	@./e2e/install quickstart $(if $(REDIS),redis)
	@$(MAKE) build
	@ONCE=$(ONCE) REDIS=$(REDIS) $(TARGET)/debug/quickstart

install: ## Installs the Debian packages that tests start, and a Valkey into the cache. 1 min, 1 s when they are there.
	@./e2e/install

test: ## Runs all that CI runs: install, check, every test with real servers, documentation. 45 min cold, 10 min warm.
	@echo "[1/4] packages";                                 ./e2e/install
	@echo "[2/4] format, lints, licenses (make check)";     $(MAKE) check
	@echo "[3/4] all tests, real servers on loopback";      $(MAKE) build
	@$(CARGO) test $(ALL) -- --skip live::
	@$(CARGO) test $(ALL) --test contract -- live::
	@$(CARGO) test $(ALL) --test scenarios
	@echo "[4/4] documentation";                            $(MAKE) doc

check: tools ## The fast part: format, lints, tests without servers, generated files, licenses. 2 min warm.
	@echo "check: format";                          $(CARGO) fmt --all -- --check
	@echo "check: lints";                           $(CARGO) clippy --quiet $(ALL) --all-targets -- -D warnings
	@echo "check: tests that need no server";       $(CARGO) test --quiet $(ALL) -- --skip live::
	@echo "check: generated files are fresh";       $(CARGO) build --quiet $(ALL) --bins
	@$(TARGET)/debug/crdgen --check
	@$(TARGET)/debug/coverage --check
	@$(CARGO) metadata --quiet --locked --format-version 1 --manifest-path gateway/fuzz/Cargo.toml >/dev/null
	@echo "check: bans, licenses, sources";         $(CARGO) fetch --quiet
	@$(DENY) --offline --log-level error check --hide-inclusion-graph bans licenses sources

bench: ## Measures codec, policy, store, messages and presence with and without Redis, very many pairs, a rolling restart, and prints ratios; ends with 1 when one is not as wanted. 40 min cold, 13 min warm with PAIRS=20000, more with all 160,000.
	@./e2e/install
	@echo "bench: codec";   $(CARGO) bench --quiet -p isthmus-sip --bench codec
	@echo "bench: policy";  $(CARGO) bench --quiet -p isthmus-policy --bench snapshot
	@echo "bench: store";   $(CARGO) bench --quiet -p isthmus-store --bench redis
	@echo "bench: load";    $(CARGO) bench --quiet -p isthmus-gateway --bench load
	@$(CARGO) build --release $(ALL) --bins
	@failed=; export ISTHMUS_GATEWAY=$(TARGET)/release/isthmus-gateway PAIRS=$(PAIRS); \
	run() { echo "bench: $$2"; $(TARGET)/release/$$1 || failed="$$failed $$1"; }; \
	run bench_message "one MESSAGE over UDP to a stanza, against t_relay of Kamailio, with and without Redis"; \
	run bench_presence "presence to 100 watchers, with and without Redis"; \
	run bench_pairs "$(PAIRS) pairs in Redis: memory, basic rate, loss of the only gateway"; \
	run bench_rolling "rolling restart of three gateways under 500 messages/s with 10,000 subscriptions"; \
	test -z "$$failed" || { echo "bench: something that is wanted does not hold:$$failed"; exit 1; }

crds: build ## Writes crds/*.yaml from the types. 2 s when built.
	@$(TARGET)/debug/crdgen

coverage: build ## Writes e2e/coverage.md from e2e/items.txt and the ids that tests name. 2 s when built.
	@$(TARGET)/debug/coverage

transcripts: ## Writes the SIP transcripts that tests compare with anew; read the difference before you commit it. 5 s when built.
	@ISTHMUS_UPDATE_TRANSCRIPTS=1 $(CARGO) test --quiet -p isthmus-sip --test machines
	@git status --short -- gateway/sip/tests/transcripts

fuzz: ## Fuzzes each parser for SECS seconds (60). What it finds stays in gateway/fuzz/target/artifacts. 10 min.
	@for file in gateway/fuzz/fuzz_targets/*.rs; do \
		target=$$(basename $$file .rs); \
		echo "fuzz: $$target for $(SECS) s"; gateway/fuzz/run $$target $(SECS); done

chaos: ## Kills, pauses, cuts, slows and fills parts of a realm under load for CHAOS_SECS (900) from SEED; prints the books. 19 min when built.
	@./e2e/install
	@$(MAKE) build
	@$(TARGET)/debug/chaos "$(CHAOS_SECS)" "$(SEED)" "$(FAULTS)"

doc: ## Builds the documentation with warnings denied. 2 min.
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet $(ALL) --no-deps

build: ## Builds every program (dev profile). 8 min cold, seconds later.
	@echo "build: all programs, dev profile (up to 8 minutes the first time)"
	@$(CARGO) build $(ALL) --bins

tools: $(DENY)

$(DENY):
	@echo "tools: building cargo-deny $(DENY_VERSION) once into $(CACHE) (4 minutes)"
	@env -u CARGO_TARGET_DIR $(CARGO) install --quiet --locked --debug --version $(DENY_VERSION) \
		--root $(CACHE)/cargo-deny-$(DENY_VERSION) cargo-deny
