# One word per job. `make demo` and `make test` need nothing but Python 3.11, git and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
SOURCES := actor learner robot_infra serl_launcher tools tests
# Extra arguments of `make demo`, e.g. `make demo ARGS="--seed 1 --online-seconds 600"`.
ARGS ?=
# Bytecode is kept also where the shell says no (many images do): without it each process compiles torch anew for ten seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-slow test-all bench-loop bench-actors bench-memory doctor coverage-safety chaos fuzz check format lock smoke clean-env env env-dev bench-replay bench-policy bench-train bench-transport bench-serving bench-latency

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: env  ## Learn sim_pnp on this machine, from installation to report.
	@$(BIN)/python -m tools.demo $(ARGS)

test: env-dev  ## Run the tests (without gpu, robot and slow ones).
	@$(BIN)/python -m pytest -q $(ARGS)

test-slow: env-dev  ## Run the slow tests: the demo with every process killed once, and more.
	@$(BIN)/python -m pytest -q -m "slow and not gpu and not robot" $(ARGS)

bench-loop: env  ## Measure the jitter of the control loop at 20 and 50 Hz with three cameras.
	@$(BIN)/python -m tools.bench_loop $(ARGS)

bench-actors: env  ## Run eight simulated actors into one learner and look for every step (about 2 minutes).
	@$(BIN)/python -m tools.bench_actors $(ARGS)

bench-memory: env  ## Sample the memory of an actor over two hours of robot time (about 10 minutes).
	@$(BIN)/python -m tools.bench_memory $(ARGS)

doctor: env  ## Look at this machine and say what to do.
	@$(BIN)/python -m tools.doctor $(ARGS)

coverage-safety: env-dev  ## Print the branch coverage of robot_infra/safety; less than 100 % fails.
	@$(BIN)/python -m coverage run --branch --source=robot_infra/safety -m pytest -q tests/robot_infra/safety
	@$(BIN)/python -m coverage report -m --fail-under=100

chaos: env-dev  ## Kill, stall and starve a learner and its actors; nothing may be lost (about 10 minutes).
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(ARGS)

fuzz: env-dev  ## Throw damaged messages at the codec and at a live learner (about 10 minutes).
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(ARGS)

test-all: env-dev  ## Run every test that needs no robot.
	@$(BIN)/python -m pytest -q -m "not robot" --hypothesis-profile=explore $(ARGS)

smoke: env  ## Run the demo with every phase cut to seconds.
	@$(BIN)/python -m tools.demo --quick $(ARGS)

check: env-dev  ## Lint, format, types, import contracts, spelling, shell scripts.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/shellcheck start_sim.sh start_dobot.sh experiments/*/*.sh tools/*.sh .ci/run

bench-replay: env-dev  ## Measure the replay beside LeRobot (nothing else should run; about 20 minutes).
	@$(BIN)/python -m tools.bench_replay $(ARGS)

bench-train: env-dev  ## Measure the trainer beside LeRobot's loop (nothing else should run; about 10 minutes).
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.bench_train $(ARGS)

bench-policy: env-dev  ## Measure the policy beside LeRobot (nothing else should run; about 10 minutes).
	@$(BIN)/python -W ignore -m tools.bench_policy $(ARGS)

bench-transport: env-dev  ## Measure the transport beside other ones (nothing else should run; about 10 minutes).
	@$(BIN)/python -m tools.bench_transport $(ARGS)

bench-latency: env-dev  ## Measure how chunks join under latency: CHECKPOINT=<policy> (nothing else should run; about 20 minutes).
	@$(BIN)/python -m tools.bench_latency --checkpoint $(CHECKPOINT) $(ARGS)

bench-serving: env-dev  ## Measure serving beside openpi's pattern and LeRobot (nothing else should run; about 15 minutes).
	@$(BIN)/python -m tools.bench_serving $(ARGS)

format: env-dev  ## Format the code and fix what can be fixed.
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lock: env-dev  ## Compile requirements/*.txt anew from pyproject.toml.
	@tools/compile_locks.sh $(UV)

env: $(VENV)/.installed-learner
env-dev: $(VENV)/.installed-dev

$(UV): requirements/uv.txt
	@$(if $(PYTHON),,echo "Python 3.11 is missing. Debian 12: sudo apt-get install python3.11 python3.11-venv"; exit 1;) \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "hiors needs Python 3.11; '$(PYTHON)' is another version. Install it (Debian 12: sudo apt-get install python3.11" \
	       "python3.11-venv) or name it: make PYTHON=/path/to/python3.11"; exit 1; }; \
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is incomplete. Install it: sudo apt-get install python3.11-venv"; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/uv.txt
	@touch $(UV)

$(VENV)/.installed-%: requirements/%.txt pyproject.toml $(UV)
	@echo "Installing requirements/$*.txt into $(VENV) ..."
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/$*.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# The development environment contains the learner's.
$(VENV)/.installed-dev: $(VENV)/.installed-learner

clean-env:  ## Remove the virtual environment (never a run).
	rm -rf $(VENV)
