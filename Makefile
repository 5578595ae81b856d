# Everything a developer runs. `make help` lists the targets; README.md says what each is for.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps lint build test test-long sim test-planted-bugs test-failpoints bench
.PHONY: test-librdkafka test-rdkafka-crate test-milvus test-same-answers

SERVERS := compat-tests/servers
SUITES := compat-tests/suites

# Failed assertions are worth more with the place they came from.
export RUST_BACKTRACE ?= 1
export CARGO_TERM_COLOR ?= never

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

deps: ## install what a build and its tests need: Debian packages, S3 and etcd servers, emulators, clients in other languages
	$(SERVERS)/install

# The tests of real processes need the binary beside them; one build of everything keeps one set of features.
build: ## build the broker and every test
	cargo build --workspace --all-targets --locked

lint: ## formatting, and clippy with warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: deps ## every test but the long runs; about 25 minutes on 2 cores from a clean machine
	cargo fmt --all --check
	$(MAKE) --no-print-directory build
	cargo test --workspace --locked --no-fail-fast
	cargo clippy --workspace --all-targets --locked -- -D warnings

test-long: deps build ## a hundred kill -9 rounds per backend, twenty power cuts, minutes of overload
	WOODPECKER_TEST_KILL_ROUNDS=100 WOODPECKER_TEST_POWER_CUTS=20 WOODPECKER_TEST_FIGHT_ROUNDS=50 \
	WOODPECKER_TEST_SLEEP_ROUNDS=30 WOODPECKER_TEST_VERIFY_ROUNDS=30 WOODPECKER_TEST_OVERLOAD_S=60 \
	WOODPECKER_TEST_ETCD_OUTAGE_S=60 WOODPECKER_TEST_ETCD_FAULTS_S=120 WOODPECKER_TEST_S3=$${WOODPECKER_TEST_S3:-minio} \
	cargo test -p compat-tests --locked --no-fail-fast

SIM_SEEDS ?= 20000
sim: ## simulate SIM_SEEDS seeds (20,000) from SIM_FIRST_SEED on
	WOODPECKER_SIM_SEEDS=$(SIM_SEEDS) WOODPECKER_SIM_FIRST_SEED=$${SIM_FIRST_SEED:-0} \
	cargo test -p compat-tests --locked --test sim -- --nocapture

test-planted-bugs: deps ## plant each known bug in turn and require that a test fails
	cargo run --locked -p compat-tests --bin planted-bugs

test-failpoints: deps ## crash the broker between every two durable steps, on a folder and on a bucket
	cargo build --locked -p broker -p compat-tests --features compat-tests/failpoints --target-dir target/failpoints
	cargo test --locked -p broker -p compat-tests --features compat-tests/failpoints --target-dir target/failpoints \
		--test failpoints -- --nocapture

test-librdkafka: deps build ## librdkafka's own tests, those that must pass listed in compat-tests/suites/librdkafka.pass
	python3 -B $(SUITES)/librdkafka.py

test-rdkafka-crate: deps build ## the rdkafka crate's own tests, likewise
	python3 -B $(SUITES)/rdkafka_crate.py

test-milvus: deps build ## what Milvus asks of its message queue, with its client library
	python3 -B $(SUITES)/milvus.py

test-same-answers: deps build ## the same calls of tools on Woodpecker and on Apache Kafka, their answers compared
	python3 -B $(SUITES)/same_answers.py

bench: ## beside a real Apache Kafka; BENCH='--quick --only groups' are arguments, --help lists them
	compat-tests/bench/run $(BENCH)
