# `make music PROMPT="..."` and `make test` set up everything they need; `make help` lists the rest.
# Without a GPU, PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" saves gigabytes of CUDA libraries.

PYTHON   ?= python3
PIP_ARGS ?=
PROMPT   ?= a slow solo piano piece
DURATION ?= 10
SEED     ?=
PORT     ?= 8024
JOBS     ?= 2
MINUTES  ?=
BUDGET   ?= 9.5
DEVICE   ?= cuda
ARGS     ?=
GPU_PYTHON ?= python3
GPU_PYTHON_VERSION ?= 3.12
VENV   ?= $(or $(VIRTUAL_ENV),.venv)# an active virtual environment is taken as it is

BIN := $(VENV)/bin
RUN := $(BIN)/python
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

export PROMPT # reaches the shell as it was typed, quotes and all

.PHONY: help music page docs test test-slow gpu gpu-wheels benchmark check lint format tiny model clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12

music: $(VENV)/installed ## music.wav and its spectrogram music.png for PROMPT="..." (DURATION=10, SEED=...)
	@$(BIN)/melody generate "$$PROMPT" --duration $(DURATION) $(if $(SEED),--seed $(SEED)) -o music.wav --spectrogram music.png

page: $(VENV)/installed-serve ## a page to make music with, at http://127.0.0.1:8024 (PORT=...)
	@$(BIN)/melody serve --port $(PORT)

docs: $(VENV)/installed-docs ## the site in outputs/site; look at it by python3 -m http.server -d outputs/site
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

test: $(VENV)/installed-dev ## the test suite
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile

test-slow: $(VENV)/installed-dev ## what takes minutes: every stage stopped at every step, two processes, determinism
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist load -m slow

gpu: ## with a GPU and no network: tests, benchmarks, training (BUDGET=9.5, DEVICE=cuda, ARGS="--stage vae_gan")
	$(GPU_PYTHON) training/gpu.py --out outputs/gpu --minutes $(BUDGET) --device $(DEVICE) --wheels .wheels $(ARGS)

gpu-wheels: ## fetch what such a machine may lack, for `make gpu`, into .wheels
	$(PYTHON) -m pip download -q --no-deps --only-binary=:all: --python-version $(GPU_PYTHON_VERSION) -c constraints.txt \
		$(foreach n,17 24 27 28 31 34 35,--platform manylinux_2_$(n)_x86_64) --platform manylinux2014_x86_64 -d .wheels \
		diffusers importlib_metadata datasets dill multiprocess soundfile cffi pycparser soxr pydantic pydantic_core \
		annotated-types typing-inspection tinysoundfont

benchmark: $(VENV)/installed-dev ## our speed beside MusicGen's and Stable Audio's, about an hour; ARGS="--seconds 10 --runs 3"
	$(RUN) benchmarks/compare.py --out outputs/benchmark $(ARGS)

check: lint ## format, lint, types and the quickest tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/test_layers.py tests/test_public_api.py tests/schedulers

lint: $(VENV)/installed-dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/installed-dev ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and what the tools left; keeps data/ and outputs/
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache dist music.wav music.png

# ---- installation ---------------------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c "import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 15) else \
		'melody-diffusers needs Python 3.10 to 3.14, and $(PYTHON) is %d.%d: make $(MAKECMDGOALS) PYTHON=python3.12, say' % v[:2])"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e .
	@touch $@

$(VENV)/installed-serve: $(VENV)/installed
	$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps tinysoundfont==0.3.7 # without its playback library, which pip would have to compile
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	@touch $@

# ---- a model from nothing ------------------------------------------------------------------------------------------
# training/recipe.py has the stages and says what makes one stale. MINUTES=9 ends a training, or the encoding, after that
# time; the same command again goes on. DATA, STAGES and MODEL are the data set, the folder of the stages and the pipeline;
# SET changes numbers of all stages that know them, SET="run.max_steps=100" say.

DATA   ?= data/synthetic
STAGES ?= outputs/tiny
MODEL  ?= src/melody_diffusers/checkpoints/melody-tiny
SET    ?=
RECIPE  = $(RUN) training/recipe.py --data "$(DATA)" --stages "$(STAGES)" --model "$(MODEL)" \
          $(if $(MINUTES),--max_minutes $(MINUTES)) $(if $(SET),--set $(SET))

tiny: $(VENV)/installed-dev ## retrain melody-tiny from nothing: data, every stage, assembly, evaluation
	$(RECIPE)

model: $(VENV)/installed-dev ## a model from your own data: DATA=data/mine STAGES=outputs/mine MODEL=my_model
	$(RECIPE) --until pipeline
