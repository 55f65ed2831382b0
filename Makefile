# Each target makes .venv when it is missing. On a fresh machine: `make demo`, `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
DATA ?= ../shared/data

.PHONY: demo test test-long check docs bench bench-quality bench-quality-small install stubs

.venv: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[all,dev]'
	touch .venv

install: .venv  ## the package with all extras, and what developers need

demo: .venv  ## the main job on its embedded default, offline
	$(BIN)/hscmae demo --output demo --overwrite
	@echo "(hscmae stands in $(BIN); to type it alone: . $(BIN)/activate)"

test: .venv  ## the tests, in a few minutes
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered --cov-fail-under=90

test-long: .venv  ## thousands of cases
	$(BIN)/pytest -m long

check: .venv  ## lint, format, types
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy

docs: .venv  ## the documentation as a site, in site/; a warning is an error
	$(BIN)/mkdocs build --strict --quiet

bench: .venv  ## timings: one table, benchmarks/results/latest.json
	$(BIN)/python -m benchmarks.timings.run

bench-quality: .venv  ## every method on every task; DATA holds yt8m_ave15.h5 and yt8m_pool.h5; docs/benchmark.md
	$(BIN)/python -m benchmarks.studies.quality $(DATA) --output bench

bench-quality-small: .venv  ## every method once on made-up pairs
	$(BIN)/python -m benchmarks.studies.quality --made-up --output bench

stubs: .venv  ## what type checkers know of the constructors, from the settings
	$(BIN)/python tests/stubs.py
