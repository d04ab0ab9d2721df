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

.PHONY: help doctor status setup demo data sample subset folds leakage photo pack preview train node features best levers study curve search lr-find \
        pseudo teach final \
        client notebook take predict views ensemble blends neighbours submissions check submit score report review backbones layers convert classify \
        export serve bench profile test test-all test-torch test-cluster test-kills test-size docs lint clean

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
#: COUNTS="3 6 10"        numbers of drivers to learn from (make curve), besides all
#: SPACE=tiny             names configs/searches/<name>.yaml, what make search varies (default: MODEL's, or default)
#: TRIALS=20              that a search shall have; more go on with it
#: SKIP=7                 trial that make search gives up
#: LOW=1e-7 HIGH=1 POINTS=100   rates between which make lr-find rises, and in how many steps
#: STUDY=levers           train a run (or predict with it) in a study's own place, where ensembles do not see it
#: FOLD=2                 one fold alone
#: VIEWS="ten_crop shifts"  of centre, multi_scale, five_crop, shifts, ten_crop, ten_crop_keep, ten_crop_swap (ensemble, review: one)
#: MODELS="a b"           runs to average or score (default: every finished one); models that make train trains
#: NAME=ensemble          names the submission (make photo: whose chain is followed; make search: the search)
#: BLEND=mean             mean, geometric, weighted, weighted_geometric, greedy or per_class (make blends compares them)
#: BALANCE=<features>     balance classes within each driver, told apart by looks, or none (docs/balance.md)
#: NEIGHBOURS=<features>  smooth over neighbours among clips' frames, or none (make neighbours compares features)
#: FEATURES="a:cut:2x2 b"  <model>[:<last layer>][:<places>] whose pretrained trunk images are compared in
#: CALIBRATE=none         none, temperature or bias
#: CLIP=1e-5              lowest probability of a submission, or fitted
#: SIZE=180x240           pack size, height x width; with regions 180x240-whole+head (default: the model's)
#: DRIVERS TEST_DRIVERS CLIPS FRAMES SEED   what make sample draws; SEED: what make search tries, too
#: FORCE=1                replace what is there
#: SKIP_BROKEN=1          go on without broken photos and table rows, and record them
#: SOURCE=<folder>        the full download that make subset picks from
#: FILE=<csv>             the submission that make check checks and make submit uploads
#: FILE=<pth>             the PyTorch checkpoint that make convert makes a weight file of, in the folder WEIGHTS
#: FILE=<file>.onnx       what make export writes (default: build/<dataset>/export/RUN.keras)
#: PORT=8000              of make serve; of the first make node (6379)
#: EXTRAS="onnx cluster"  what make setup installs beside: onnx, to write and try .onnx files; cluster, for ENGINE=ray and make search
#: ENGINE=ray             make train, make search and make predict as tasks on a cluster (default: here, one after the other)
#: ADDRESS=auto           of the cluster: this machine's, or <first>:6379 (default: this machine alone; make node: is the first)
#: GPUS_PER_FOLD=1        that a task takes, also 0.5 (default: 1 where there are any)
#: CPUS_PER_FOLD=8        cores, and so threads, that a task takes (default: a GPU's share, or the smallest machine's all)
#: MEMORY_PER_FOLD=24     GB that are kept free for a task (default: 0)
#: SHARDS=4               tasks that ENGINE=ray makes of make predict
#: FOLDER=/data/dw        where make node keeps what it is brought (default: the asking machine's folder where it is shared)
#: IP=10.0.0.2            by which other machines reach make node's
#: MESSAGE="one line"     what Kaggle and submissions/ledger.csv say of it
#: WAIT=1800              seconds that make submit waits for the score
#: IMAGE="a.jpg photos"   photos and folders of photos that make classify names; the photo that make photo follows
#: HEATMAP=out.png        overlays of make classify: a file, a folder, or a pattern like "maps/{image}.png"
#: HEATMAPS=60            heat maps of so many photos at the head of the lists of make review (default: none)
#: CLASS=<class>          the class that overlays show: id, name or number (default: the likeliest)
#: TOP=5                  how many classes make classify prints
#: ACCOUNT=<name>         your name in Kaggle's addresses (make notebook; default: the token's)
#: HOURS=11               of Kaggle's 12 until its notebook stops by itself
#: EARLIER=<account>/<notebook>  whose output on Kaggle the next notebook goes on from
#: VENDOR=1               take wheels of PACKAGES="simplejpeg" along, for notebooks without internet
#: MACHINE=NvidiaTeslaT4  Kaggle's name of the accelerator
#: FROM=<folder>          what came back from Kaggle (make take)
#: KAGGLE=<path>          the Kaggle client (default: make installs one into .venv-kaggle)
#: ROWS="pack load"      rows of make bench: imports memory neighbours pack load crops train cache, and by name alone growth
#: IMAGES=1000            photos that make bench and make profile measure with
#: REPEAT=3               repetitions that they time, 3 or more
#: FULL=1                 rows of make bench that depend on the number of images at the competition's
#: DOCS=1                 put the table of make bench into docs/performance.md
#: KILLS=60               random kills of make test-kills
#: STEPS="pack score"    what make test-size measures again (default: everything, anew)
#: PYTHON3=python3        the Python that builds .venv, 3.11 or later
#: ACCELERATOR=cuda       install TensorFlow for an NVIDIA GPU
#: JSON=1                 print what make status says as JSON
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
EXPECTED_FROM   = a folder of runs that were trained elsewhere
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

status: setup ## what there is: photos, folds, packs, every run and fold, submissions; what is stale, and why; JSON=1 as JSON
	$(DW) status $(DATA_OPT) $(call flag,json,JSON)

setup: $(RUNTIME) $(if $(EXTRAS),$(patsubst %,$(VENV)/.extra-%,$(EXTRAS))) ## build .venv from the pinned requirements, with EXTRAS="onnx cluster"

# an environment is finished while its stamp holds what its requirements hold: a clone changes dates, not contents
finished = cmp -s $(1) $(2)
install  = scripts/install.py $(abspath $(1)) $(2) $(3)

$(RUNTIME): FORCE
	@$(call finished,requirements/$(ACCELERATOR).txt,$@) || { \
	  $(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON3) is older than Python 3.11; name a newer one: make PYTHON3=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }; \
	  $(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear $(VENV); \
	  $(PYTHON) $(call install,$(PYTHON),requirements/$(ACCELERATOR).txt,$@); }

$(DEV): $(RUNTIME) FORCE
	@$(call finished,requirements/dev.txt,$@) || $(PYTHON) $(call install,$(PYTHON),requirements/dev.txt,$@)

$(VENV)/.extra-%: $(RUNTIME) FORCE
	@$(call finished,requirements/$*.txt,$@) || \
	  $(PYTHON) $(call install,$(PYTHON),requirements/$*.txt,$@) --constraint requirements/$(ACCELERATOR).txt

# an environment of its own: the client's dependencies need not fit TensorFlow's
$(CLIENT): FORCE
	@$(call finished,requirements/kaggle.txt,$@) || { \
	  .venv-kaggle/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv-kaggle; \
	  $(PYTHON3) $(call install,.venv-kaggle/bin/python,requirements/kaggle.txt,$@); }

client: $(CLIENT) ## the official Kaggle client, into .venv-kaggle

# and another: the command line and PyTorch alone, to read checkpoints once
$(TORCH): FORCE
	@$(call finished,requirements/torch.txt,$@) || { \
	  .venv-torch/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv-torch; \
	  $(PYTHON3) $(call install,.venv-torch/bin/python,requirements/torch.txt,$@); }

FORCE:

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

leakage: setup | folds/$(DATASET).csv ## a random split beside the driver split, by the same classifiers on thumbnails (docs/leakage.md)
	$(DW) leakage $(DATA_OPT)

photo: need-IMAGE setup ## IMAGE=<name>'s way through the line, as far as it is built: table, fold, pack, models, chain NAME, submissions
	$(DW) photo $(DATA_OPT) $(call option,models,MODELS) $(call option,name,NAME) -- "$$IMAGE"

pack: setup | folds/$(DATASET).csv ## pack the photos into HDF5, at SIZE or as MODEL asks
	$(DW) pack $(DATA_OPT) $(call option,size,SIZE) $(call option,model,MODEL) $(call option,set,SET) $(call flag,force,FORCE) \
	  $(call flag,skip-broken,SKIP_BROKEN)

preview: setup | folds/$(DATASET).csv ## draw what training by MODEL (or a RUN, as it was begun) sees into build/<dataset>/preview
	$(if $(or $(RUN),$(MODEL)),,$(error make preview needs MODEL=<name> or RUN=<name>))
	$(if $(MODEL),$(DW) pack $(DATA_OPT) --model "$(MODEL)" $(call option,set,SET) $(call flag,skip-broken,SKIP_BROKEN))
	$(DW) preview $(DATA_OPT) $(call option,model,MODEL) $(call option,run,RUN) $(call option,set,SET) $(call option,fold,FOLD)

# MODEL, or several MODELS: each packed as it asks
TRAINED = $(strip $(or $(MODEL),$(if $(findstring command,$(origin MODELS)),$(MODELS))))
ON_CLUSTER = $(call option,engine,ENGINE) $(call option,address,ADDRESS) $(call option,gpus,GPUS_PER_FOLD) \
  $(call option,cpus,CPUS_PER_FOLD) $(call option,memory,MEMORY_PER_FOLD)

train: $(if $(TRAINED),,need-MODEL) setup | folds/$(DATASET).csv ## train every fold of MODEL (or MODELS) that is not finished, and predict; ENGINE=ray: on a cluster (docs/cluster.md)
	$(Q)$(foreach model,$(TRAINED),PYTHONPATH=src $(PYTHON) -m driverwatch pack $(DATA_OPT) --model "$(model)" \
	  $(call option,set,SET) $(call flag,skip-broken,SKIP_BROKEN) &&) :
	$(DW) train "$(TRAINED)" $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,fold,FOLD) $(call flag,force,FORCE) $(call option,study,STUDY) $(ON_CLUSTER)

node: setup ## lend this machine to a Ray cluster until Ctrl-C: its first one, or one more at ADDRESS=<first>:6379 (docs/cluster.md)
	$(DW) node $(call option,address,ADDRESS) $(call option,ip,IP) $(call option,port,PORT) $(call option,folder,FOLDER)

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

curve: need-MODEL setup | folds/$(DATASET).csv ## train MODEL on COUNTS drivers of each fold and on all; write docs/curve.md: what more drivers are worth
	$(DW) curve "$(MODEL)" $(DATA_OPT) $(call option,counts,COUNTS) $(call option,set,SET) $(call place,weights,WEIGHTS)

search: need-MODEL setup | folds/$(DATASET).csv ## search MODEL's settings within SPACE by out-of-fold loss, and score the best on other folds; ENGINE=ray: on a cluster (docs/search.md)
	$(DW) search "$(MODEL)" $(DATA_OPT) $(call option,space,SPACE) $(call option,trials,TRIALS) $(call option,name,NAME) \
	  $(call option,seed,SEED) $(call option,set,SET) $(call place,weights,WEIGHTS) $(call option,skip,SKIP) $(call flag,force,FORCE) \
	  $(ON_CLUSTER)

lr-find: need-MODEL setup | folds/$(DATASET).csv ## the loss of MODEL's last stage at rates rising from LOW to HIGH in POINTS steps, plotted, with two rates to try
	$(DW) lr-find "$(MODEL)" $(DATA_OPT) $(call option,fold,FOLD) $(call option,low,LOW) $(call option,high,HIGH) \
	  $(call option,points,POINTS) $(call option,set,SET) $(call place,weights,WEIGHTS)

pseudo: need-RUN setup ## train ROUNDS of pseudo-labels from RUN on (RUN-round1, ...; SET="train.pseudo.threshold=0.9"), compare them out of fold
	$(DW) pseudo "$(RUN)" $(DATA_OPT) $(call option,rounds,ROUNDS) $(call option,set,SET) $(call place,weights,WEIGHTS)

final: need-RUN setup ## train RUN-all: RUN's settings on all drivers, for the epochs that RUN's folds chose
	$(DW) final "$(RUN)" $(DATA_OPT) $(call option,set,SET) $(call place,weights,WEIGHTS) $(call option,fold,FOLD)

# the development requirements have what writes and checks notebooks
notebook: need-MODEL $(DEV) | folds/$(DATASET).csv ## a Kaggle notebook that trains MODEL, and the data set it needs; prints how they go up (docs/kaggle_notebook.md)
	$(DW) notebook "$(MODEL)" $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,views,VIEWS) $(call option,hours,HOURS) $(call place,account,ACCOUNT) $(call option,name,NAME) \
	  $(call option,earlier,EARLIER) $(call option,packages,PACKAGES) $(call flag,vendor,VENDOR) $(call option,machine,MACHINE)

take: need-FROM setup ## check runs trained elsewhere, in the folder FROM (or RUN of them), and bring them in beside those here
	$(DW) take "$(FROM)" $(DATA_OPT) $(call option,run,RUN) $(call flag,force,FORCE)

predict: setup ## predict with the trained RUN (default: MODEL's) under VIEWS; ENGINE=ray: in SHARDS on a cluster
	$(if $(or $(RUN),$(MODEL)),,$(error make predict needs RUN=<name> or MODEL=<name>))
	$(DW) predict "$(or $(RUN),$(MODEL))" $(DATA_OPT) $(call option,views,VIEWS) $(call option,fold,FOLD) $(call option,study,STUDY) \
	  $(call option,shards,SHARDS) $(ON_CLUSTER)

views: need-RUN setup ## log loss and cost of every view set that RUN has predicted
	$(DW) views "$(RUN)" $(DATA_OPT)

ensemble: setup ## blend MODELS into submissions/<dataset>/NAME.csv
	$(DW) ensemble $(DATA_OPT) $(call option,models,MODELS) $(call option,name,NAME) $(call option,views,VIEWS) $(call option,fold,FOLD) \
	  $(call option,blend,BLEND) $(call option,balance,BALANCE) $(call option,neighbours,NEIGHBOURS) $(call option,calibrate,CALIBRATE) $(call option,clip,CLIP) $(call place,weights,WEIGHTS)

teach: need-NAME setup ## keep what MODELS, put together as in an ensemble, make of images without labels: SET="train.pseudo.taught=NAME"
	$(DW) teach "$(NAME)" $(DATA_OPT) $(call option,models,MODELS) $(call option,views,VIEWS) $(call option,blend,BLEND) \
	  $(call option,balance,BALANCE) $(call option,neighbours,NEIGHBOURS) $(call option,calibrate,CALIBRATE) $(call place,weights,WEIGHTS)

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

report: setup ## one page, build/<dataset>/report/index.html, of whatever is built: scores, confusions, curves, levers, settings
	$(DW) report $(DATA_OPT)

review: setup ## write build/<dataset>/report/review.html: photos by loss, disagreement and entropy of MODELS, neighbours by FEATURES, HEATMAPS
	$(DW) review $(DATA_OPT) $(call option,models,MODELS) $(call option,views,VIEWS) $(call option,features,FEATURES) \
	  $(call option,heatmaps,HEATMAPS) $(call place,weights,WEIGHTS)

# the shell splits IMAGE at blanks and expands * unless it is one file's name; no quote or backtick in it is a command
classify: need-IMAGE setup ## name what is on IMAGE: ImageNet's classes with MODEL=<backbone>, the driver classes with RUN=<run>
	$(Q)if test -e "$$IMAGE"; then set -- "$$IMAGE"; else set -- $$IMAGE; fi; \
	PYTHONPATH=src $(PYTHON) -m driverwatch classify $(call option,model,MODEL) $(call option,run,RUN) $(DATA_OPT) \
	  $(call option,fold,FOLD) $(call place,weights,WEIGHTS) $(call option,heatmap,HEATMAP) $(call option,class,CLASS) \
	  $(call option,top,TOP) -- "$$@"

export: need-RUN setup ## write RUN's fold models (or FOLD's) as one .keras or .onnx FILE, preprocessing and class names inside
	$(DW) export "$(RUN)" $(DATA_OPT) $(call option,fold,FOLD) $(call option,file,FILE) $(call flag,force,FORCE)

serve: need-RUN setup ## a page on this machine, http://127.0.0.1:PORT: drop a photo, see RUN's probabilities and a heat map
	$(DW) serve "$(RUN)" $(DATA_OPT) $(call option,fold,FOLD) $(call option,port,PORT)

backbones: setup ## the backbone table, or all that it says of MODEL
	$(DW) backbones $(if $(findstring command,$(origin MODEL)),"$(MODEL)")

layers: need-MODEL setup ## MODEL's layers: blocks, shapes, parameters, what is frozen, where it may be cut
	$(DW) layers "$(MODEL)" $(call option,set,SET)

bench: setup ## the line beside rivals and limits, a ratio a row, on drawn photos or DATASET's; ROWS= some, FULL=1 at the competition's size
	$(DW) bench --dataset "$(if $(findstring command,$(origin DATASET)),$(DATASET),drawn)" $(call place,data,DATA) \
	  $(call option,rows,ROWS) $(call option,model,MODEL) $(call option,set,SET) $(call option,images,IMAGES) \
	  $(call option,repeat,REPEAT) $(call flag,full,FULL) $(call flag,docs,DOCS)

profile: need-MODEL setup ## where the time of MODEL's training step goes: reading, augmentation, transfer, forward, backward, update
	$(DW) profile "$(MODEL)" --dataset "$(if $(findstring command,$(origin DATASET)),$(DATASET),drawn)" $(call place,data,DATA) \
	  $(call option,set,SET) $(call option,images,IMAGES) $(call option,repeat,REPEAT)

convert: need-FILE need-MODEL need-WEIGHTS $(TORCH) ## make MODEL's file in the folder WEIGHTS of FILE=<public PyTorch checkpoint>
	$(Q)PYTHONPATH=src .venv-torch/bin/python -m driverwatch convert "$(FILE)" --model "$(MODEL)" --weights "$(WEIGHTS)"

test: $(DEV) ## the tests
	$(PYTHON) -m pytest

test-all: $(DEV) ## the tests of the whole zoo too: every backbone built, trained one step, saved and loaded
	$(PYTHON) -m pytest -m ""

docs: $(DEV) ## write docs/broken_input.md, commands.md and settings.md from the tests and the typed settings
	$(Q)WRITE_DOCS=1 $(PYTHON) -m pytest tests/test_broken_input.py tests/test_commands.py tests/test_reference.py

test-torch: $(DEV) $(TORCH) ## the networks of converted checkpoints against the same layers in PyTorch
	$(PYTHON) -m pytest tests/test_torch.py

test-cluster: $(DEV) $(VENV)/.extra-cluster ## folds on a cluster of three nodes on this machine, one killed, one of other code (minutes)
	$(PYTHON) -m pytest tests/test_cluster.py tests/test_loopback.py -m ""

test-kills: $(DEV) ## kill the verbs before each change they make, and KILLS times at random
	$(Q)PYTHONPATH=src:tests $(PYTHON) -m support.kills "$(or $(KILLS),60)"

test-size: $(DEV) ## time and memory of each verb at 102,150 drawn photos against 9,900 (a quarter of an hour), or of STEPS again
	$(Q)PYTHONPATH=src:tests $(PYTHON) -m support.fullsize $(STEPS)

lint: $(DEV) ## ruff and mypy
	$(PYTHON) -m ruff check src tests
	$(PYTHON) -m ruff format --check --quiet src tests
	$(PYTHON) -m mypy

clean: ## remove build/ (packs, runs); folds and submissions stay
	rm -rf build
