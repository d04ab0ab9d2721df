# From driver-camera photos to a Kaggle submission. `make help` lists the targets; `make demo` runs the whole line on drawn photos.
# GNU make 3.81 and up. Each target asks one verb of the command line, which skips what is done and refuses what does not fit.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON3     ?= python3
ACCELERATOR ?= cpu
DATASET     ?= statefarm

VENV   := .venv
PYTHON := $(VENV)/bin/python
Q       := $(if $(V),,@)
DW       = $(Q)PYTHONPATH=src $(PYTHON) -m driverwatch

# options that are given to a verb only when the variable is set: on make's command line, since a NAME or SIZE in the
# environment may mean anything; places and the data set may come from the environment too
option   = $(if $(findstring command,$(origin $(2))),$(if $($(2)),--$(1) "$($(2))"))
place    = $(if $($(2)),--$(1) "$($(2))")
flag     = $(if $(findstring command,$(origin $(2))),$(if $(filter 1 yes true,$($(2))),--$(1)))
DATA_OPT = --dataset "$(DATASET)" $(call place,data,DATA)

RUNTIME := $(VENV)/.runtime-$(ACCELERATOR)
DEV     := $(VENV)/.dev
CLIENT  := .venv-kaggle/.installed
TORCH   := .venv-torch/.installed
DEMO    := @$(MAKE) --no-print-directory DATASET=drawn DATA= RUN= SET= FOLD= VIEWS= BLEND= BALANCE= NEIGHBOURS= CALIBRATE= CLIP= SIZE= SEED= FORCE= DRIVERS= TEST_DRIVERS= CLIPS= FRAMES=

.PHONY: help doctor setup demo data sample subset folds pack preview train features best levers study pseudo teach final predict views ensemble blends neighbours submissions check submit score \
        backbones layers convert classify test test-all test-torch test-kills test-size docs lint clean

help: ## this list
	@echo 'make <target> [VARIABLE=value ...]'; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'
	@echo; echo 'variables'
	@grep -hE '^#: ' $(MAKEFILE_LIST) | sed 's/^#: /  /'

#: DATASET=statefarm      names configs/datasets/<name>.yaml, its fold file, build and submissions folders
#: DATA=<folder>          where the data set's files lie (default: in its YAML)
#: MODEL=<name>           names configs/models/<name>.yaml
#: RUN=<name>             names what came of it (default: the model's name)
#: SET="train.epochs=3"   changes settings, several separated by spaces
#: ROUNDS=2               how many rounds of make pseudo
#: WEIGHTS=<folder>       local ImageNet weights (default: Keras downloads them)
#: CUT=<layer>            last layer kept of the backbone (make features)
#: HEAD=logistic          logistic or dense (make features)
#: TRAIN=1                train what the table of levers lacks (make levers)
#: STUDY=levers           train a run (or predict with it) in a study's own place, where ensembles do not see it
#: FOLD=2                 one fold alone
#: VIEWS="ten_crop shifts"  of centre, multi_scale, five_crop, shifts, ten_crop, ten_crop_keep, ten_crop_swap (ensemble: one)
#: MODELS="a b"           runs to average or score (default: every finished one)
#: NAME=ensemble          names the submission
#: BLEND=mean             mean, geometric, weighted, weighted_geometric, greedy or per_class (make blends compares them)
#: BALANCE=<features>     balance classes within each driver, told apart by looks, or none (docs/balance.md)
#: NEIGHBOURS=<features>  smooth over neighbours among clips' frames, or none (make neighbours compares features)
#: FEATURES="a:cut:2x2 b"  <model>[:<last layer>][:<places>] whose pretrained trunk images are compared in
#: CALIBRATE=none         none, temperature or bias
#: CLIP=1e-5              lowest probability of a submission, or fitted
#: SIZE=180x240           pack size, height x width; with regions 180x240-whole+head (default: the model's)
#: DRIVERS TEST_DRIVERS CLIPS FRAMES SEED   what make sample draws
#: FORCE=1                replace what is there
#: SKIP_BROKEN=1          go on without broken photos and table rows, and record them
#: SOURCE=<folder>        the full download that make subset picks from
#: FILE=<csv>             the submission that make check checks and make submit uploads
#: FILE=<pth>             the PyTorch checkpoint that make convert makes a weight file of, in the folder WEIGHTS
#: MESSAGE="one line"     what Kaggle and submissions/ledger.csv say of it
#: WAIT=1800              seconds that make submit waits for the score
#: IMAGE="a.jpg photos"   photos and folders of photos that make classify names
#: HEATMAP=out.png        overlays of make classify: a file, a folder, or a pattern like "maps/{image}.png"
#: CLASS=<class>          the class that overlays show: id, name or number (default: the likeliest)
#: TOP=5                  how many classes make classify prints
#: KAGGLE=<path>          the Kaggle client (default: make installs one into .venv-kaggle)
#: KILLS=60               random kills of make test-kills
#: STEPS="pack score"    what make test-size measures again (default: everything, anew)
#: PYTHON3=python3        the Python that builds .venv, 3.11 or later
#: ACCELERATOR=cuda       install TensorFlow for an NVIDIA GPU
#: DEBUG=1                show tracebacks
#: V=1                    show the commands that make runs

CONVERTING      = $(filter convert,$(MAKECMDGOALS))
EXPECTED_MODEL  = one of: $(if $(CONVERTING),googlenet squeezenet_torch squeezenet_v1_1,$(basename $(notdir $(wildcard configs/models/*.yaml))))
EXPECTED_FEATURES = models in configs/models like mobilenet_v2:block_13_expand_relu:2x2
EXPECTED_SOURCE = the folder of the full download
EXPECTED_NAME   = what the ensemble of teachers is called
EXPECTED_RUN    = the name of a trained run
EXPECTED_FILE   = $(if $(CONVERTING),a PyTorch checkpoint (.pth),a submission CSV)
EXPECTED_WEIGHTS = the folder of local weights
EXPECTED_IMAGE  = photos or folders of photos
EXPECTED_MESSAGE = one line on what it is

need-%:
	$(if $($*),,$(error make $(MAKECMDGOALS) needs $*=..., $(EXPECTED_$*)))@:

# runs before anything is installed: with .venv where its Python works, else with PYTHON3, on the standard library alone
doctor: ## what is fine here, what is not, and what to do about it; installs nothing
	$(Q)python='$(PYTHON)'; "$$python" -c '' 2>/dev/null || python='$(PYTHON3)'; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null || \
	  { echo "problem  Python        $$python does not run or is older than 3.8. Install Python 3.11 to 3.13, or name one:" \
	    'make doctor PYTHON3=python3.12.'; exit 2; }; \
	PYTHONPATH=src $$python -m driverwatch.doctor --dataset "$(DATASET)" $(call place,data,DATA) $(call place,weights,WEIGHTS) \
	  --accelerator "$(ACCELERATOR)" --make-version "$(MAKE_VERSION)"

setup: $(RUNTIME) ## build .venv from the pinned requirements

$(RUNTIME): requirements/$(ACCELERATOR).txt
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON3) is older than Python 3.11; name a newer one: make PYTHON3=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear $(VENV)
	@echo "installing $< into $(VENV), once"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement requirements/$(ACCELERATOR).txt
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	@echo "installing $< into $(VENV), once"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@touch $@

# an environment of its own: the client's dependencies need not fit TensorFlow's
$(CLIENT): requirements/kaggle.txt
	@.venv-kaggle/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv-kaggle
	@echo "installing $< into .venv-kaggle, once"
	@.venv-kaggle/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# and another: the command line and PyTorch alone, to read checkpoints once
$(TORCH): requirements/torch.txt
	@.venv-torch/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv-torch
	@echo "installing $< into .venv-torch, once"
	@.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

demo: setup ## the whole line on drawn photos: no download, no GPU, minutes
	$(DEMO) sample
	$(DEMO) train MODEL=tiny
	$(DEMO) train MODEL=tiny_separable
	$(DEMO) ensemble NAME=demo MODELS="tiny tiny_separable"
	$(DEMO) check FILE=submissions/drawn/demo.csv
	$(DEMO) score MODELS="tiny tiny_separable"

data: setup $(if $(KAGGLE),,$(CLIENT)) ## download the competition into DATA, unpack and verify it (needs a Kaggle token)
	$(DW) data $(DATA_OPT) $(call place,client,KAGGLE)

sample: setup ## draw a competition (DATASET=drawn)
	$(DW) sample --dataset "$(if $(findstring command,$(origin DATASET)),$(DATASET),drawn)" $(call place,data,DATA) \
	  $(call option,drivers,DRIVERS) $(call option,test-drivers,TEST_DRIVERS) $(call option,clips,CLIPS) \
	  $(call option,frames,FRAMES) $(call option,size,SIZE) $(call option,seed,SEED) $(call flag,force,FORCE)

subset: need-SOURCE setup ## pick a data set's training photos out of a full download: SOURCE=<folder> DATASET=statefarm_mini
	$(DW) subset $(DATA_OPT) --source "$(SOURCE)"

folds: setup ## write folds/<dataset>.csv by driver, or check the one there
	$(DW) folds $(DATA_OPT) $(call flag,force,FORCE) $(call flag,skip-broken,SKIP_BROKEN)

folds/$(DATASET).csv: | setup
	$(DW) folds $(DATA_OPT) $(call flag,skip-broken,SKIP_BROKEN)

pack: setup | folds/$(DATASET).csv ## pack the photos into HDF5, at SIZE or as MODEL asks
	$(DW) pack $(DATA_OPT) $(call option,size,SIZE) $(call option,model,MODEL) $(call option,set,SET) $(call flag,force,FORCE) \
	  $(call flag,skip-broken,SKIP_BROKEN)

preview: setup | folds/$(DATASET).csv ## draw what training by MODEL (or a RUN, as it was begun) sees into build/<dataset>/preview
	$(if $(or $(RUN),$(MODEL)),,$(error make preview needs MODEL=<name> or RUN=<name>))
	$(if $(MODEL),$(DW) pack $(DATA_OPT) --model "$(MODEL)" $(call option,set,SET) $(call flag,skip-broken,SKIP_BROKEN))
	$(DW) preview $(DATA_OPT) $(call option,model,MODEL) $(call option,run,RUN) $(call option,set,SET) $(call option,fold,FOLD)

train: need-MODEL setup | folds/$(DATASET).csv ## train every fold of MODEL that is not finished, and predict
	$(DW) pack $(DATA_OPT) --model "$(MODEL)" $(call option,set,SET) $(call flag,skip-broken,SKIP_BROKEN)
	$(DW) train "$(MODEL)" $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,fold,FOLD) $(call flag,force,FORCE) $(call option,study,STUDY)

features: need-MODEL setup | folds/$(DATASET).csv ## MODEL's trunk as it is (CUT= earlier), its features once, a HEAD on them per fold; predictions as train's
	$(DW) pack $(DATA_OPT) --model "$(MODEL)" $(call option,set,SET) $(call flag,skip-broken,SKIP_BROKEN)
	$(DW) features "$(MODEL)" $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,cut,CUT) $(call option,head,HEAD) $(call option,fold,FOLD) $(call flag,force,FORCE)

best: setup | folds/$(DATASET).csv ## follow configs/recipes/DATASET.yaml to its submissions, going on from whatever is built
	$(DW) best $(DATA_OPT) $(call place,weights,WEIGHTS)

levers: setup | folds/$(DATASET).csv ## write docs/levers.md: what each lever is worth out of fold; TRAIN=1 trains what is missing
	$(DW) levers $(DATA_OPT) $(call place,weights,WEIGHTS) $(call flag,train,TRAIN)

study: setup | folds/$(DATASET).csv ## train every run of configs/studies/NAME.yaml (default: freezing) and write docs/NAME_study.md
	$(DW) study "$(if $(findstring command,$(origin NAME)),$(NAME),freezing)" $(DATA_OPT) $(call place,weights,WEIGHTS)

pseudo: need-RUN setup ## train ROUNDS of pseudo-labels from RUN on (RUN-round1, ...; SET="train.pseudo.threshold=0.9"), compare them out of fold
	$(DW) pseudo "$(RUN)" $(DATA_OPT) $(call option,rounds,ROUNDS) $(call option,set,SET) $(call place,weights,WEIGHTS)

final: need-RUN setup ## train RUN-all: RUN's settings on all drivers, for the epochs that RUN's folds chose
	$(DW) final "$(RUN)" $(DATA_OPT) $(call option,set,SET) $(call place,weights,WEIGHTS) $(call option,fold,FOLD)

predict: setup ## predict with the trained RUN (default: MODEL's) under VIEWS
	$(if $(or $(RUN),$(MODEL)),,$(error make predict needs RUN=<name> or MODEL=<name>))
	$(DW) predict "$(or $(RUN),$(MODEL))" --dataset "$(DATASET)" $(call option,views,VIEWS) $(call option,fold,FOLD) $(call option,study,STUDY)

views: need-RUN setup ## log loss and cost of every view set that RUN has predicted
	$(DW) views "$(RUN)" --dataset "$(DATASET)"

ensemble: setup ## blend MODELS into submissions/<dataset>/NAME.csv
	$(DW) ensemble $(DATA_OPT) $(call option,models,MODELS) $(call option,name,NAME) $(call option,views,VIEWS) $(call option,fold,FOLD) \
	  $(call option,blend,BLEND) $(call option,balance,BALANCE) $(call option,neighbours,NEIGHBOURS) $(call option,calibrate,CALIBRATE) $(call option,clip,CLIP)

teach: need-NAME setup ## keep what MODELS, put together as in an ensemble, make of images without labels: SET="train.pseudo.taught=NAME"
	$(DW) teach "$(NAME)" $(DATA_OPT) $(call option,models,MODELS) $(call option,views,VIEWS) $(call option,blend,BLEND) \
	  $(call option,balance,BALANCE) $(call option,neighbours,NEIGHBOURS) $(call option,calibrate,CALIBRATE)

blends: setup ## every blend and calibration of MODELS: loss where fitted, loss on drivers left out, reliability
	$(DW) blends $(DATA_OPT) $(call option,models,MODELS) $(call option,views,VIEWS)

neighbours: need-FEATURES setup ## FEATURES of all images, and what smoothing MODELS over neighbours in them scores (docs/neighbours.md)
	$(DW) neighbours $(DATA_OPT) --features "$(FEATURES)" $(call option,models,MODELS) $(call place,weights,WEIGHTS)

submissions: setup ## write each run's view sets and fold models as submissions
	$(DW) submissions $(DATA_OPT) $(call option,models,MODELS)

check: need-FILE setup ## check FILE=<submission.csv> as Kaggle would
	$(DW) check "$(FILE)" $(DATA_OPT)

# the shell reads MESSAGE from the environment, where make puts it, so that no quote or backtick in it is a command
submit: need-FILE need-MESSAGE setup $(if $(KAGGLE),,$(CLIENT)) ## upload FILE=<submission.csv> with MESSAGE="...", wait for its score, note it in the ledger
	$(DW) submit "$(FILE)" $(DATA_OPT) --message "$$MESSAGE" $(call place,client,KAGGLE) $(call option,wait,WAIT) $(call flag,force,FORCE)

score: setup ## out-of-fold log loss per model, fold, driver and class
	$(DW) score $(DATA_OPT) $(call option,models,MODELS)

# the shell splits IMAGE at blanks and expands * unless it is one file's name; no quote or backtick in it is a command
classify: need-IMAGE setup ## name what is on IMAGE: ImageNet's classes with MODEL=<backbone>, the driver classes with RUN=<run>
	$(Q)if test -e "$$IMAGE"; then set -- "$$IMAGE"; else set -- $$IMAGE; fi; \
	PYTHONPATH=src $(PYTHON) -m driverwatch classify $(call option,model,MODEL) $(call option,run,RUN) --dataset "$(DATASET)" \
	  $(call option,fold,FOLD) $(call place,weights,WEIGHTS) $(call option,heatmap,HEATMAP) $(call option,class,CLASS) \
	  $(call option,top,TOP) -- "$$@"

backbones: setup ## the backbone table, or all that it says of MODEL
	$(DW) backbones $(if $(findstring command,$(origin MODEL)),"$(MODEL)")

layers: need-MODEL setup ## MODEL's layers: blocks, shapes, parameters, what is frozen, where it may be cut
	$(DW) layers "$(MODEL)" $(call option,set,SET)

convert: need-FILE need-MODEL need-WEIGHTS $(TORCH) ## make MODEL's file in the folder WEIGHTS of FILE=<public PyTorch checkpoint>
	$(Q)PYTHONPATH=src .venv-torch/bin/python -m driverwatch convert "$(FILE)" --model "$(MODEL)" --weights "$(WEIGHTS)"

test: $(DEV) ## the tests
	$(PYTHON) -m pytest

test-all: $(DEV) ## the tests of the whole zoo too: every backbone built, trained one step, saved and loaded
	$(PYTHON) -m pytest -m ""

docs: $(DEV) ## write docs/broken_input.md from the tests
	$(Q)WRITE_DOCS=1 $(PYTHON) -m pytest tests/test_broken_input.py

test-torch: $(DEV) $(TORCH) ## the networks of converted checkpoints against the same layers in PyTorch
	$(PYTHON) -m pytest tests/test_torch.py

test-kills: $(DEV) ## kill the verbs before each change they make, and KILLS times at random
	$(Q)PYTHONPATH=src $(PYTHON) tests/kills.py "$(or $(KILLS),60)"

test-size: $(DEV) ## time and memory of each verb at 102,150 drawn photos against 9,900 (a quarter of an hour), or of STEPS again
	$(Q)PYTHONPATH=src $(PYTHON) tests/fullsize.py $(STEPS)

lint: $(DEV) ## ruff and mypy
	$(PYTHON) -m ruff check src tests
	$(PYTHON) -m ruff format --check --quiet src tests
	$(PYTHON) -m mypy

clean: ## remove build/ (packs, runs); folds and submissions stay
	rm -rf build
