# The one place for commands. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two cores shared by many small tests: threads that wait for each other make them ten times slower.
export OMP_NUM_THREADS ?= 2
export GOMP_SPINCOUNT ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types format encoder chaos paper compose-test bench clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv with everything (about 6 GB: the registry's torch brings its GPU libraries)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install python3 and python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: setup  ## the main job on bundled sample frames: a table and a report page
	$(BIN)/dapo run pipeline/samples --product sample --out demo-out --overwrite
	@echo
	@echo "Open demo-out/report.html. Your own pictures:  $(BIN)/dapo run FOLDER --types scratch,hole --out my-run"

test: setup  ## all tests, with branch coverage
	$(BIN)/pytest --cov --cov-report=term

check: lint types test  ## what CI runs

lint: setup  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

POOL ?= $(HOME)/.cache/dapo-inspection/pool
encoder: setup  ## train the bundled encoder and its prompt pack again (about 70 minutes on two cores, 9 GB of disk)
	$(BIN)/python -m trainer.encoder.features --out $(POOL)/validation --count 2000 --seed 2 --families validation
	$(BIN)/python -m trainer.encoder.features --out $(POOL)/train --count 60000 --seed 1
	$(BIN)/python -m trainer.encoder.train --pool $(POOL)/train --validation $(POOL)/validation --out dapo/weights/dapo-tiny.safetensors
	$(BIN)/python -m trainer.encoder.tune --pool $(POOL)/train --validation $(POOL)/validation --out $(POOL)/seed1.pack --seed 1
	$(BIN)/python -m trainer.encoder.samples --frames pipeline/samples --good $(POOL)/good
	$(BIN)/dapo calibrate $(POOL)/good --product sample --pack $(POOL)/seed1.pack --out dapo/weights/dapo-tiny.pack

KILLS ?= 200
SEED ?= 1
chaos: setup  ## kill servers and processes at random, count what is lost (KILLS=200 SEED=1; as root it fills a disk too)
	$(BIN)/python -m tests.chaos.run --kills $(KILLS) --seed $(SEED) $(if $(filter 0,$(shell id -u)),--full-disk)

DATA ?= $(DAPO_EVAL_DATA)
paper: setup  ## the paper's claims and what labels are worth, on photographs (DATA=FOLDER; about two hours)
	@test -d "$(DATA)" || { echo "Say where the photographs are: make paper DATA=FOLDER (docs/reproduce.md says how they must lie)"; exit 1; }
	$(BIN)/python -m trainer.paper.claims --data "$(DATA)" --out paper
	$(BIN)/python -m trainer.paper.curves --data "$(DATA)" --out paper/curves

compose-test: setup  ## build the docker compose demo, kill each container once, count (needs a Docker engine; deploy/check.sh)
	deploy/check.sh --other-ports
	$(BIN)/python -m tests.compose.run

bench: setup  ## every speed claim
	$(BIN)/python -m benchmarks.types
	$(BIN)/python -m benchmarks.reference
	$(BIN)/python -m benchmarks.aupro
	$(BIN)/python -m benchmarks.stream --model null

clean:  ## remove what the commands above made, but not .venv
	rm -rf demo-out paper .pytest_cache .mypy_cache .ruff_cache .coverage evaluation
