# One entry point: what a person types, the CI types too.
# A fresh machine needs nothing but make and Python >= 3.11; the rest is built into .venv from uv.lock.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo cluster schema test test-all test-night test-bare faults faults-teachers fuzz mutants test-rollout-matrix bench catalogues check types lint fmt release clean

PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
BIN := .venv/bin
CATALOGUES := $(wildcard lib/lectern/locale/*/LC_MESSAGES/lectern.po)
# The functions whose first argument is a sentence for people, or, of `many`, its singular and its plural.
KEYWORDS := --no-default-keywords --keywords "Text msgid sentence t changes.note self.note many:1,2 LecternError TryAgain FallBack Refuse CallAPerson Misuse Absent Lost"
SOURCES := lib flows town tests $(wildcard benchmarks playbooks)

# The uv that installs all else by the lock's checksums is itself installed by them, for each platform that it has a wheel of.
PIP_UV := -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes --requirement .uv/uv.txt

# Another project's environment has no say here.
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME
unexport UV_PYTHON
unexport PYTHONDONTWRITEBYTECODE
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# The machine decides whom it trusts, also where a company's proxy stands in between.
export UV_SYSTEM_CERTS := 1

# Without a home that can be written, caches and dotfiles stay inside the project.
ifeq ($(shell [ -w "$${HOME:-}" ] && echo yes),)
export HOME := $(CURDIR)/.uv/home
export UV_CACHE_DIR ?= $(CURDIR)/.uv/cache
export PIP_CACHE_DIR ?= $(CURDIR)/.uv/cache-pip
endif

# A variable that was typed; the environment's are another program's.
typed = $(if $(filter command,$(origin $1)),$2 "$($1)")

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: .venv/.built ## book and air classes on every path, on this machine alone; KEEP=1 leaves it running, KEEP=0 does not
	@$(BIN)/python -m town $(if $(KEEP),$(if $(filter 0,$(KEEP)),--no-keep,--keep))

# Most of the time is waiting: for a class to begin, for a supervisord to start again.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15 $(if $(SEED),--seed $(SEED))
# Four bare Debian hosts in containers are provisioned, rolled out and back by README and RUNBOOK, and the trial cluster is
# built and killed piece by piece: half an hour of packages.
BARE := tests/playbooks/test_bare.py tests/playbooks/test_cluster.py
# Who names a path gets all of it but what the night is for.
depth = $(if $(filter tests/%,$(ARGS)),,--depth $1 $(addprefix --ignore=,$(BARE)) tests)

test: check ## all checks, unmarked tests, and the tutorial on living hosts; ARGS="tests/flows -k booking -n 0" is passed on
	@$(PYTEST) $(call depth,commit) $(ARGS)

test-all: .venv/.built ## what make test leaves: the other live tests, and some cases of each night matrix; SEED=seed
	@$(PYTEST) $(call depth,ci) $(ARGS)

test-night: check ## everything, before a release: the matrices whole, days with faults, bare hosts; takes a night
	@LECTERN_BY_EXEC=1 $(PYTEST) $(call depth,night) $(ARGS)
	@$(PYTEST) --postgresql -m live tests/fundamentals
	@$(MAKE) faults
	@$(MAKE) faults-teachers
	@$(MAKE) fuzz
	@$(MAKE) mutants
	@$(MAKE) test-rollout-matrix
	@$(MAKE) test-bare

test-bare: .venv/.built ## README and RUNBOOK followed on bare hosts in containers, and the cluster; wants a Docker engine
	@$(BIN)/python -m pytest -n 0 -m night $(BARE) $(ARGS)

test-rollout-matrix: .venv/.built ## the rollout under a fault at every task and step; takes hours, ARGS="--every 20" less
	@$(BIN)/python -m tests.playbooks.matrix $(ARGS)

cluster: .venv/.built ## PostgreSQL, two Prefect servers, two teachers, three streamers in containers, classes on air; ARGS=down ends it
	@$(BIN)/python -m town.cluster $(ARGS)

faults: .venv/.built ## a random day while everything is killed and cut; N=classes SEED=seed
	@$(BIN)/python -m tests.faults $(if $(N),--classes $(N)) $(if $(SEED),--seed $(SEED))

faults-teachers: .venv/.built ## two teachers, one killed or stopped at each point; hours, CASES=how many N=bookings SEED=seed
	@$(BIN)/python -m tests.faults.teachers $(if $(CASES),--cases $(CASES)) $(if $(N),--bookings $(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: .venv/.built ## odd messages through living hosts, among good bookings; N=messages SEED=seed
	@$(BIN)/python -m tests.fuzz $(if $(N),--messages $(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

mutants: .venv/.built ## single faults put into the product: which ones do the nearest tests miss? N=how many SEED=seed RING=decide
	@$(BIN)/python -m tests.mutants $(if $(N),--n $(N)) $(if $(SEED),--seed $(SEED)) $(if $(RING),--ring $(RING))

bench: .venv/.bench ## what is promised, measured beside its peers; ROW=storm one row, QUICK=1 in a few minutes
	@$(BIN)/python -m benchmarks $(ROW) $(if $(QUICK),--quick)

check: .venv/.built ## format, lint, types, import contracts and playbooks
	@$(MAKE) --no-print-directory --jobs=2 types lint

# The types take a processor for longer than all else together.
types: .venv/.built
	@$(BIN)/mypy

lint: .venv/.built
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/lint-imports
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --strict --profile production -q playbooks inventory

catalogues: .venv/.built ## bring the catalogues up to date with the sentences in the code; then translate what is new
	@PYTHONPATH=. $(BIN)/pybabel --quiet extract --project lectern --mapping-file pyproject.toml $(KEYWORDS) --no-location --sort-output --output .venv/lectern.pot lib flows
	@for one in $(CATALOGUES); do \
		$(BIN)/pybabel --quiet update --domain lectern --input-file .venv/lectern.pot --output-file "$$one" --ignore-obsolete \
			--ignore-pot-creation-date --no-fuzzy-matching --width 120 --locale "$$(basename "$$(dirname "$$(dirname "$$one")")")"; \
	done

fmt: .venv/.built ## format, and mend what the linter can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

schema: .venv/.built ## the JSON Schema of all messages, in examples/messages.schema.json
	@$(BIN)/python -m lectern.wire.schema > examples/messages.schema.json

release: .venv/.built ## all that a host needs, in one file in dist/; PYTHON_VERSION=3.13 PLATFORM=linux-aarch64 name the hosts'
	@$(BIN)/python -m playbooks.release $(call typed,PYTHON_VERSION,--python-version) $(call typed,PLATFORM,--platform)

clean: ## remove everything that was built or cached here
	@rm -rf .venv .uv .demo demo-report.json dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find lib flows town tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The peers are in a group of their own, which nothing else needs.
.venv/.bench: .venv/.built
	@uv=$$(command -v uv || echo .uv/bin/uv); "$$uv" sync --frozen --quiet --extra postgresql --extra prefect-servers --group bench
	@touch $@

.uv/uv.txt: uv.lock
	@mkdir -p .uv; echo '*' > .uv/.gitignore
	@awk '/^\[\[package/ { is_uv = 0 } /^name = "uv"$$/ { is_uv = 1 } \
		is_uv && /^version = / { split($$0, part, "\""); printf "uv==%s", part[2] } \
		is_uv && match($$0, /sha256:[0-9a-f]+/) { printf " --hash=%s", substr($$0, RSTART, RLENGTH) }' uv.lock > $@

# Built again only when the lock, the project file or a catalogue has changed. An environment that is there keeps its Python,
# unless PYTHON=... asks for another one.
.venv/.built: uv.lock pyproject.toml $(CATALOGUES) | .uv/uv.txt
	@[ -x $(BIN)/python ] || echo "Building .venv from uv.lock. It downloads the packages, which takes a minute or two, once." >&2
	@python=; \
	for one in $(PYTHONS); do \
		if "$$one" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$(command -v "$$one"); break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11 or newer among: $(PYTHONS). Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
		uv=.uv/bin/uv; \
		if ! "$$uv" --version >/dev/null 2>&1; then \
			rm -rf .uv/bin .uv/lib .uv/lib64 .uv/pyvenv.cfg; \
			if "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
				"$$python" -m venv .uv; \
				.uv/bin/python $(PIP_UV); \
			elif "$$python" -m pip --version >/dev/null 2>&1; then \
				"$$python" $(PIP_UV) --target .uv; \
			else \
				echo "$$python has neither venv nor pip. Install them (Debian: apt install python3-venv), then type the same again." >&2; \
				exit 1; \
			fi; \
		fi; \
	fi; \
	if [ -n "$(PYTHON)" ] || ! [ -x $(BIN)/python ]; then UV_PYTHON=$$python; export UV_PYTHON; fi; \
	"$$uv" sync --frozen --quiet --extra postgresql --extra prefect-servers; \
	$(BIN)/pybabel --quiet compile --domain lectern --directory lib/lectern/locale; \
	touch $@
