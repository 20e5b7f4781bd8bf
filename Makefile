# make demo and make test work on a fresh machine as the only command typed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# training goes on without a network; where nothing is trained, W&B is in use only where a key is configured
demo reproduce-small test test-full: export WANDB_MODE ?= offline
# tests side by side: more threads than cores wait for each other, several times slower
test test-full: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
PROMPT ?=
.PHONY: help setup demo play reproduce-small test test-full lint docs format clean

help:  ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(STAMP)  ## Create .venv and install the exact versions of constraints.txt

# setuptools: a dependency of Hydra comes as source only, and old ones cannot build a wheel of it
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found, pianolm needs 3.11 to 3.13: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt hatchling editables setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)  ## Compose, train and play: four pieces and their pictures in demo/
	$(BIN)/python -m pianolm.run experiment=demo stage=generate hydra.run.dir=demo
	@ls demo/*.mid demo/*.png demo/index.html
	@echo 'A model trained for minutes plays like a beginner. The bundled model: make play, or make play PROMPT=my.mid'

play: $(STAMP)  ## Continue PROMPT=my.mid with the bundled model, or play something new
	$(BIN)/python -m pianolm.run stage=generate $(if $(PROMPT),"prompt='$(PROMPT)'")

reproduce-small: $(STAMP)  ## Compare pianolm's tokens with MidiTok's, reduced: under 15 minutes on two cores
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[bench]'
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/tokenizer-comparison/run.sh --plan small --data demo \
	  --out outputs/tokenizer-comparison-small
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/tokenizer-comparison/run.sh --plan small --data demo \
	  --out outputs/tokenizer-comparison-small --sides pianolm-codebook --options ties=explicit --constrained

test: $(STAMP)  ## Tests that take seconds each
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# an empty -m takes the place of the "not slow" of pyproject.toml
test-full: $(STAMP)  ## All tests, the slow ones too
	$(BIN)/python -m pytest -m ''

lint: $(STAMP)  ## ruff, mypy, the layer rule and the links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(STAMP)  ## Build the documentation site: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)  ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove runs, artifacts and caches, but not .venv
	rm -rf artifacts outputs demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
