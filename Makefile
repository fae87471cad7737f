# make demo   install and run the built-in study (phantoms), about five minutes after install
# make federation   the built-in study over real processes: a coordinator and three hospitals
# make results   every table of docs/results.md from ../shared/data, hours on two cores
# make test   install what the tests need and run them: units, whole studies, one deployment over TLS
# make test-all   those, and the matrix of crashes, faults and attacks that real processes go through
# make hashes   requirements-hashes.txt for this platform: an install that takes no other files
# make lint   format, lint, types, layers
# make reference   docs/reference.md, every key of every file, and the tables of docs/images.md
# make bench  speed, as ratios measured side by side

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export HF_HUB_OFFLINE ?= 1

DATA ?= ../shared/data
# Four at a time on two cores: some tests wait for processes or the network.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo federation results reference test test-matrix test-all lint bench hashes clean

demo: $(VENV)/.installed
	$(BIN)/hica-sim run simulations/studies/phantoms.toml --out runs/demo

federation: $(VENV)/.installed
	$(BIN)/hica-sim federation simulations/studies/federation.toml --out runs/federation

results: $(VENV)/.installed
	$(BIN)/hica-sim results --data $(DATA) --out runs/results --page docs/results.md

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not matrix"

test-matrix: $(VENV)/.installed-dev
	$(PYTEST) -m matrix

test-all: test test-matrix

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: $(VENV)/.installed-dev
	$(BIN)/python -m hica_simulations.experiments.reference docs/reference.md
	$(BIN)/python -m tests.unit.hica.images.page docs/images.md

bench: $(VENV)/.installed-dev
	$(BIN)/python -m hica_simulations.experiments.benchmarks

hashes:
	$(PYTHON) deploy/hashes.py requirements-hashes.txt

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# torch and torchvision are asked for together, so that pip picks builds that match.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[ray,dev]'
	touch $@
