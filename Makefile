# make install   the package and its commands in .venv
# make demo   the whole system on built-in phantoms: makes, trains, predicts, evaluates, explains, reports
# make clinic   the loop with a PACS: starts an Orthanc and the node, sends phantom exams, waits for reports and cards
# make acceptance   the node is tried with real processes: a PACS, senders, kills, a full disk; some two hours
# make test   all tests
# make benchmark   measured beside Keras: writes docs/measurements.md and benchmarks/results.json; some 25 minutes
# make corpus   10,000 mutated files are read, and what becomes of them counted by kind; about an hour on two cores
# make kills   commands are killed while they write, and what they leave is looked at; some minutes
# All make their own environment in .venv; nothing but git, make and Python 3.11 or newer is needed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
DEMO := demo-run
# options of benchmarks/run.py, such as: make benchmark BENCHMARK="--only inference exam"
BENCHMARK ?=
# options of benchmarks/corpus.py and kills.py, such as: make corpus CORPUS="--seed 2 --only 'wrong view'"
CORPUS ?=
KILLS ?=
# options of benchmarks/acceptance.py, such as: make acceptance ACCEPTANCE="--only patients"
ACCEPTANCE ?=

.PHONY: install demo clinic acceptance test lint docs benchmark corpus kills clean

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mammodensity needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making the environment in .venv"
	@$(PYTHON) -m venv .venv

# torch first and pinned: see pyproject.toml
.venv/core: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch 2.13.0 (CPU, about 200 MB to fetch)"
	@$(PIP) torch==2.13.0
	@echo "installing mammodensity"
	@$(PIP) -e .
	@touch $@

.venv/dev: .venv/core
	@echo "installing what the tests need"
	@$(PIP) -e '.[dev]'
	@touch $@

install: .venv/core
	@echo "installed; activate the environment with: . .venv/bin/activate"

demo: .venv/core
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh $(DEMO)

.venv/clinic: .venv/core
	@echo "installing what the node needs"
	@$(PIP) -e '.[clinic]'
	@touch $@

clinic: .venv/clinic
	@$(BIN)/python benchmarks/clinic_loop.py

acceptance: .venv/dev
	$(BIN)/pytest -m slow tests/test_clinic_*.py
	$(BIN)/python benchmarks/acceptance.py --keep $(ACCEPTANCE)

test: .venv/dev
	$(BIN)/pytest -n 2

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_conformance.py

benchmark: .venv/dev
	$(BIN)/python benchmarks/run.py $(BENCHMARK)

corpus: .venv/dev
	$(BIN)/python benchmarks/corpus.py $(CORPUS)

kills: .venv/dev
	$(BIN)/python benchmarks/kills.py $(KILLS)

clean:
	rm -rf .venv .benchmark $(DEMO) build dist src/*.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
