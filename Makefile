# The commands of this repository; `make help` lists them. All paths are relative, so the folder may have any name.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Everything is installed; what the demo needs is. Installing everything makes both.
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
CELERY_STAMP := $(VENV)/.installed-celery
STACK_STAMP = $(if $(filter celery,$(EXECUTOR)),$(CELERY_STAMP),$(DEMO_STAMP))
STACK_ARGS = $(if $(EXECUTOR),--executor $(EXECUTOR))
SHELL := /bin/sh
# Bytecode is kept, whatever the caller's shell says: without it each process compiles the product, and 600 files of
# tests, anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST_ARGS ?=
# Of the tests, for a machine of two cores: while one of them waits for a server or a child, the others compute.
PROCESSES ?= 4
# Of the journeys: one runs the pages in Chromium, the others a story each; so up to four stacks at a time.
JOURNEY_PROCESSES ?= 4
# Of both in one run: while three tell journeys, which wait for servers and browsers, two run tests.
ALL_PROCESSES ?= 5
DEMO_ARGS ?=
# Of demo and up: celery for tasks on separate hosts; by default the LocalExecutor, or what runs already.
EXECUTOR ?=
FIGURES ?=
# Of test-faults; without a SEED it goes on from the last one in build/faults/results.jsonl.
ROUNDS ?= 16
SEED ?=
FAULTS_ARGS ?=
# Of fuzz: names of targets, --seconds of each.
FUZZ ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo up down status browser screenshots test test-journeys test-all test-nightly test-faults fuzz audit coverage check check-format check-lint check-types check-imports check-language check-spelling figures gate-figures meter-figures benchmark-figures docs reference notebook format lock release clean

help: ## List the commands
	@echo "Ease.ml for Apache Airflow"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 26

setup: $(STAMP) ## Make the virtual environment and install everything into it, what tests and checks need, too

demo: $(STACK_STAMP) ## One night for all tenants on a real Airflow; again for the next night; EXECUTOR=celery for separate hosts
	@$(RUN) scripts/demo.py $(STACK_ARGS) $(DEMO_ARGS)

up: $(STACK_STAMP) ## Start the same stack in the background and say where it is; UP_ARGS=--allow-forced for forced promotions, UP_ARGS=--scheduler for easeml scheduler
	@$(RUN) scripts/launch.py up $(STACK_ARGS) $(UP_ARGS)

down: ## Stop it
	@if [ -x $(RUN) ]; then $(RUN) scripts/launch.py down; else echo "Nothing is running."; fi

status: $(DEMO_STAMP) ## Say whether the stack runs, and where
	@$(RUN) scripts/launch.py status || [ $$? -eq 3 ]  # 3: nothing runs, which is an answer, too

browser: ## Install Debian's Chromium: tests/browser and the pictures of the pages are made with it, the tests in its build without windows
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && \
	  { apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core || { apt-get update -qq && \
	    apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; }; }; } || { \
	  echo "There is no chromium here. As root: apt-get install --no-install-recommends chromium"; exit 1; }
	@command -v chromium-headless-shell >/dev/null || [ "$$(id -u)" != 0 ] || \
	  apt-get install -qq -y --no-install-recommends chromium-headless-shell || \
	  echo "There is no chromium-headless-shell for this system: the tests use chromium, which takes them longer."

screenshots: $(STAMP) browser ## Take the pictures of docs/pictures/pages anew from what runs: make demo up screenshots
	@$(RUN) scripts/screenshots.py

test: $(STAMP) ## All tests but the journeys and the nightly ones, property tests with an eighth of their examples
	@$(RUN) -m pytest -m "not nightly and not journey" --processes $(PROCESSES) $(PYTEST_ARGS)

test-journeys: $(STAMP) ## Whole stories: nights on a real Airflow, pages in Chromium (make browser), killed processes, the tutorial
	@$(RUN) -m pytest -m "journey and not nightly" --processes $(JOURNEY_PROCESSES) $(PYTEST_ARGS)

test-all: $(STAMP) ## Both in one run, side by side, as CI does: in less time than one after the other
	@$(RUN) -m pytest -m "not nightly" --slow-tests list --processes $(ALL_PROCESSES) $(PYTEST_ARGS)

test-nightly: $(STAMP) ## Every test, statistical soaks and journeys among them, property tests with all their examples
	@$(RUN) -m pytest --hypothesis-profile=nightly -m "not journey" --processes $(PROCESSES) $(PYTEST_ARGS)
	@$(RUN) -m pytest --hypothesis-profile=nightly -m journey --processes $(JOURNEY_PROCESSES) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-faults ROUNDS=200

test-faults: $(STAMP) ## Kill, stop, fill, delay and cut a real installation, and see that nothing is lost; ROUNDS=900 SEED=1 for hours
	@$(RUN) tests/faults/run_faults.py --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(FAULTS_ARGS)

fuzz: $(STAMP) ## Search for inputs that a reader of foreign text or files fails on; FUZZ="--seconds 600 condition" for one
	@$(RUN) -c 'import atheris' 2>/dev/null || $(RUN) -m pip install --quiet 'atheris>=2.3,<4'  # 35 MB, for nothing else
	@$(RUN) tests/fuzz/run_fuzz.py $(FUZZ)

audit: ## Look for known vulnerabilities of every pinned dependency; fails where the advisories of PyPI cannot be reached
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet 'pip-audit>=2.9,<3'; }
	@build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

coverage: $(STAMP) ## All tests but the nightly ones, with the lines they miss
	@$(RUN) -m pytest -m "not nightly" --cov --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

CHECKS := check-format check-lint check-types check-imports check-language check-spelling

check: $(STAMP) ## Format, lint, types, import rules, language, spelling; pre-commit runs the same
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(CHECKS)

check-format: $(STAMP)
	@$(RUN) -m ruff format --check .

check-lint: $(STAMP)
	@$(RUN) -m ruff check .

check-types: $(STAMP)
	@$(RUN) scripts/check_types.py

check-imports: $(STAMP)
	@$(VENV)/bin/lint-imports

check-language: $(STAMP)
	@$(RUN) scripts/language.py

check-spelling: $(STAMP)
	@$(RUN) -m codespell_lib README.md CONTRIBUTING.md SECURITY.md docs

figures: $(STAMP) ## Every table and plot of docs/selection.md anew, an hour or more; FIGURES="--only bench" for one
	@$(RUN) benchmarks/make_figures.py selection $(FIGURES)

gate-figures: $(STAMP) ## Every table and plot of docs/gate.md anew, some minutes; FIGURES="--only cifar" for one
	@$(RUN) benchmarks/make_figures.py gate $(FIGURES)

meter-figures: $(STAMP) ## Every table and plot of docs/meter.md anew, a minute; FIGURES="--only sizes" for one
	@$(RUN) benchmarks/make_figures.py meter $(FIGURES)

benchmark-figures: $(STAMP) ## Every table of docs/benchmarks.md anew from what was measured, some minutes
	@$(RUN) benchmarks/make_figures.py benchmarks $(FIGURES)

docs: $(STAMP) ## The pages of docs/ as a site in build/docs; a broken link or a page without a place ends it
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "open build/docs/index.html"

reference: $(STAMP) ## Every page of docs/reference anew from the code
	@$(RUN) scripts/reference.py

notebook: $(STAMP) ## Execute the notebook of docs/examples anew and keep its outputs
	@$(RUN) docs/examples/notebook/execute.py

format: $(STAMP) ## Put the code into the form that `make check` wants
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

lock: $(STAMP) ## Resolve constraints.txt anew and print what moved; LOCK_ARGS="--changes FILE" keeps that
	@PYTHONPATH=scripts $(RUN) -m release.lock $(LOCK_ARGS)

release: $(STAMP) ## Build a commit's wheel and source distribution into dist/, checked, with an SBOM and their provenance; RELEASE_ARGS="--key FILE"
	@PYTHONPATH=scripts $(RUN) -m release $(RELEASE_ARGS)

clean: down ## Remove the environment and every cache; the state in .easeml stays (delete it by hand)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Each is made again whenever what is to be installed changes.
$(DEMO_STAMP) $(CELERY_STAMP) $(STAMP): pyproject.toml constraints.txt scripts/install.py scripts/pip_settings.py

$(DEMO_STAMP):
	$(call install,demo)

$(CELERY_STAMP):
	$(call install,celery)

$(STAMP):
	$(call install,everything)

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: Airflow's providers need it. '$(PYTHON)' is: $$($(PYTHON) -V 2>&1)."; \
	  echo "Install the Debian package python3 (Debian 12 or newer), or name another one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: Debian keeps that part of Python (venv, ensurepip) in a package"; \
	  echo "of its own. Everything here is installed into such an environment, never into the system. As root:"; \
	  echo "  apt-get install python3-venv"; exit 1; }
	@$(PYTHON) scripts/install.py $(VENV) $(1) $^
endef
