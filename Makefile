# The README's commands. Each installs what is missing (scripts/install-deps), builds, and does its job; safe to repeat.

CARGO ?= cargo
# Arguments of `pgward demo`, e.g. make demo ARGS="--port 7000 --dir /var/tmp/demo"
ARGS ?=
# PostgreSQL's major version for demo and test, e.g. make test PG=18; without it the newest that is installed. What the
# system lacks, scripts/postgresql takes from PyPI (16 and 18).
PG ?=
# The folder that cargo builds in, wherever it is configured to be.
TARGET = $(shell $(CARGO) metadata --format-version 1 --no-deps 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
# Sets LIBCLANG_PATH where libclang came from PyPI.
ENV = . ./scripts/build-env
PG_ENV = $(if $(PG),PGWARD_PG=$$(scripts/postgresql $(PG)) && export PGWARD_PG &&)

.PHONY: demo test regress fuzz bench release lint deps

demo: deps
	$(ENV) && $(CARGO) build --release -p pgward
	$(PG_ENV) exec $(TARGET)/release/pgward demo $(ARGS)

test: deps
	@scripts/install-drivers
	$(ENV) && $(PG_ENV) $(CARGO) test --workspace

# PostgreSQL's own regression and isolation suites, straight to a server and through PgWard; fails where PgWard loses a
# test. Arguments e.g. make regress ARGS="--suite isolation". With checks on, as the tests run.
regress: deps
	$(ENV) && $(CARGO) build -p pgward
	PGWARD=$(TARGET)/debug/pgward scripts/regress $(ARGS)

# Every fuzz target for FUZZ_SECONDS (30).
fuzz: deps
	scripts/fuzz

# The program to deploy, built with the profile of a training run: target/release-profiled/pgward.
release: deps
	$(PG_ENV) scripts/release

bench: deps
	$(PG_ENV) scripts/release --if-changed
	PGWARD=$(TARGET)/release-profiled/pgward scripts/bench $(ARGS)

lint: deps
	$(CARGO) fmt --all --check
	$(ENV) && $(CARGO) clippy --workspace --all-targets -- -D warnings

deps:
	@scripts/install-deps
