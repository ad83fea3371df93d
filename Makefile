# The commands of this project. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Every step wants all cores for itself.
.NOTPARALLEL:

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spillway
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

.PHONY: help build test components fmt fmt-check lint deny bench bench-kubernetes drill differential demo crds

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the program `spillway` as it is installed: target/dist/spillway
	cargo build --profile dist --locked

# Incremental compilation costs disk and time where everything is built once.
test: export CARGO_INCREMENTAL = 0
test: fmt-check lint deny components ## Everything that CI checks: style, licences, and all tests with the real components
	@# The tests start the program itself.
	cargo build --workspace --locked
	cargo test --workspace --locked

differential: ## Random clusters beside the real kube-scheduler; SEEDS=50, or SEED=17 for one that failed
	cargo build --locked
	SPILLWAY_SEEDS=$(or $(SEEDS),$(if $(SEED),1,50)) $(if $(SEED),SPILLWAY_SEED=$(SEED)) cargo test -p tests --locked --test it differential:: -- --nocapture

components: ## Build etcd, Kubernetes, KWOK, Karpenter, Prometheus and a service controller, and install moto and prism, for the tests (once, 15 to 20 minutes on two cores)
	tests/components/build.sh

fmt: ## Format all code
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

lint: ## Clippy and the compiler's warnings, as errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny: $(CARGO_DENY) ## Check licences, banned and duplicate crates, and their sources
	$(CARGO_DENY) --workspace --locked check --hide-inclusion-graph bans licenses sources
	@# The database of advisories is fetched; where it is out of reach that says nothing about this change.
	$(CARGO_DENY) --workspace --locked check --hide-inclusion-graph advisories || echo "deny: advisories not checked or open, see above"

# Never updated in place: another version has another path.
$(CARGO_DENY):
	cargo install cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(CACHE)/cargo-deny-$(CARGO_DENY_VERSION)

bench: ## Criterion benchmarks of the hot paths
	cargo bench --profile dist -p tests --locked

bench-kubernetes: components ## Fan-outs and single pods against the real kube-scheduler, and memory (about 30 minutes)
	cargo build --profile dist --locked
	for nodes in 10 1000 5000; do cargo bench --profile dist -p tests --locked --bench kubernetes -- fan-out --nodes $$nodes --pairs 5; done
	cargo bench --profile dist -p tests --locked --bench kubernetes -- fan-out --nodes 10 --pairs 5 --stock-scheduler-limits
	cargo bench --profile dist -p tests --locked --bench kubernetes -- single
	for part in backlog bystanders guards; do cargo bench --profile dist -p tests --locked --bench kubernetes -- $$part; done
	cargo bench --profile dist -p tests --locked --bench kubernetes -- memory

drill: components ## Spillway killed, hung, cut off and replaced in the middle of ROUNDS=50 fan-outs each, beside the real kube-scheduler (about an hour)
	cargo build --locked
	SPILLWAY_DRILL_ROUNDS=$(or $(ROUNDS),50) cargo test -p tests --locked --test it failure::drill -- --test-threads 1 --nocapture

demo: ## 500 pods burst over three virtual nodes, no cluster needed; ARGS="--output json" and the like are passed on
	cargo run --release --locked -- demo $(ARGS)

crds: ## Write deploy/crds anew from the Rust types
	UPDATE=1 cargo test -p scheduler-extender --locked crds
