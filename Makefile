# From driver-camera images to a Kaggle submission. `make help` lists the targets; `make demo` runs the whole pipeline on synthetic images.
# GNU make 3.81 and up. Each target asks one command of the command line, which skips what is done and refuses what does not fit.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

# What is typed after make, or is in the environment under one of these names, is text: no $, quote, backtick or # in it means
# anything to make or to a shell. Here each becomes its own text, for every use and for the processes that make starts.
VARIABLES := ACCELERATOR ACCOUNT ADDRESS CLASS_BALANCE BLEND CALIBRATE CLASS CLIP CLIPS N_DRIVERS CPUS_PER_FOLD TRUNCATE_AT DATA DATASET DEBUG DETAILS DOCS \
  DRIVERS RESUME_FROM ENGINE EXTRAS EMBEDDINGS FILE FOLD FOLDER FORCE FORMAT FRAMES RUNS_FROM FULL GPUS_PER_FOLD HEAD CAM N_CAMS LR_MAX HOURS \
  IMAGE IMAGES IP JSON KAGGLE KAGGLE_WEIGHTS KILLS LR_MIN MACHINE MEMORY_PER_FOLD MESSAGE MODEL MODELS NAME KNN PACKAGES LR_STEPS PORT PYTHON3 \
  REPEAT ROUNDS BENCHMARKS RUN SEED SET SHARDS SIZE SKIP_TRIAL SKIP_INVALID SOURCE SPACE COMMANDS STUDY TEST_DRIVERS TOP TRAIN TRIALS UPGRADE V VENDOR \
  TTA WAIT WEIGHTS JOBS STRICT PYTEST_ADDOPTS
GIVEN     := $(foreach each,$(.VARIABLES),$(if $(findstring command,$(origin $(each))),$(each)))
INHERITED := $(foreach each,$(VARIABLES),$(if $(filter environment,$(firstword $(origin $(each)))),$(each)))
$(foreach each,$(GIVEN) $(INHERITED),$(eval override $(each) := $$(value $(each)))$(eval export $(each)))

# many containers and services set it; every process would then compile 4,000 modules of TensorFlow, for 8 seconds
unexport PYTHONDONTWRITEBYTECODE

define newline


endef
# text as one word of a shell's; a recipe ends at a newline, whatever is around it
q = $(if $(findstring $(newline),$(1)),$(error expected a variable of one line; got $(1)))'$(subst ','\'',$(1))'

# switches: 1 is on; 0 or nothing is off; anything else is refused before anything runs
SWITCHES := DEBUG DETAILS DOCS FORCE FULL JSON SKIP_INVALID STRICT TRAIN UPGRADE V VENDOR
ON  := 1 yes Yes YES true True TRUE on On ON y Y
OFF := 0 no No NO false False FALSE off Off OFF n N
$(foreach each,$(filter $(SWITCHES),$(GIVEN)) $(filter V,$(INHERITED)),$(if \
  $(filter-out $(ON) $(OFF),$($(each)))$(word 2,$($(each))),$(error $(each)=$($(each)): expected 1 (yes, true, on) or 0 (no, false, off))))
$(if $(filter EXTRAS,$(GIVEN)),$(if $(filter-out onnx openvino litert cluster tracking backends weights,$(EXTRAS)),$(error EXTRAS=$(EXTRAS): expected some of onnx, openvino, litert, cluster, tracking, backends, weights)))

PYTHON3     ?= python3
ACCELERATOR ?= cpu
DATASET     ?= statefarm
JOBS        ?= 2

VENV   := .venv
PYTHON := $(VENV)/bin/python
Q       := $(if $(filter $(ON),$(V)),,@)
DW       = $(Q)PYTHONPATH=src $(PYTHON) -m driverwatch
MEASURE  = $(Q)PYTHONPATH=src:. $(PYTHON) -m benchmarks

# the Python that was named; no shell expands ~ between quotes
at_home  = $(if $(value HOME),$(subst <home>,,$(subst <home>~/,$(value HOME)/,<home>$(1))),$(1))
PYTHON_3 = $(call q,$(call at_home,$(PYTHON3)))

# a variable that nobody uses is handed on to the processes that make starts, unless it is nearly one of ours
STRANGE  := $(filter-out $(VARIABLES),$(GIVEN))
MISSPELT := $(if $(STRANGE),$(shell $(PYTHON_3) scripts/make_help.py variables $(foreach each,$(STRANGE),$(call q,$(each)))))
$(if $(MISSPELT),$(error $(MISSPELT)))

# options that are given to a command only when the variable is set: on make's command line, since a NAME or SIZE in the
# environment may mean anything; places and the data set may come from the environment too
option   = $(if $(filter $(2),$(GIVEN)),$(call place,$(1),$(2)))
place    = $(if $($(2)),--$(1)=$(call q,$($(2))))
flag     = $(if $(filter $(2),$(GIVEN)),$(if $(filter $(ON),$($(2))),--$(1)))
DATA_OPT = --dataset=$(call q,$(DATASET)) $(call place,data,DATA)
DEMO_DATA    = $(call q,$(if $(filter DATASET,$(GIVEN)),$(DATASET),demo))

# a name where it can be a file's, else one that no file has: make would take blanks, colons and % in it for its own
LETTERS := a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T U V W X Y Z \
  0 1 2 3 4 5 6 7 8 9 . _ -
without = $(if $(2),$(call without,$(subst $(firstword $(2)),,$(1)),$(wordlist 2,99,$(2))),$(1))
name    = $(if $(filter-out <>,<$(call without,$(1),$(LETTERS))>),no-such-name,$(1))
FOLDS  := folds/$(call name,$(DATASET)).csv
PINNED := requirements/$(call name,$(ACCELERATOR)).txt

RUNTIME := $(VENV)/.runtime-$(call name,$(ACCELERATOR))
DEV     := $(VENV)/.dev
CLIENT  := .venv-kaggle/.installed
TORCH   := .venv-torch/.installed
DEMO    := @$(MAKE) --no-print-directory DATASET=demo DATA= RUN= SET= FOLD= TTA= BLEND= CLASS_BALANCE= KNN= CALIBRATE= CLIP= SIZE= SEED= FORCE= DRIVERS= TEST_DRIVERS= CLIPS= FRAMES=

.PHONY: help help-all doctor status setup demo data synthetic subset folds leakage trace pack preview train node linear-probe reproduce ablation study data-scaling search lr-find \
        pseudo-rounds pseudo-labels refit \
        client notebook import-runs predict tta ensemble blends knn label-issues submissions check submit score report card review backbones layers convert classify \
        export serve bench profile test test-slow test-all coverage test-torch test-cluster test-kills test-size docs docs-images lint lock audit clean

help: ## the targets to begin with
	@$(PYTHON_3) scripts/make_help.py help

help-all: ## every target, and the variables of each
	@$(PYTHON_3) scripts/make_help.py help-all

# what was typed and is no target
.DEFAULT:
	@$(PYTHON_3) scripts/make_help.py unknown $(call q,$@)

#: DATASET=statefarm        names configs/datasets/<name>.yaml, its fold file, build and submissions folders
#: DATA=<folder>            where the data set's files lie (default: in its YAML)
#: MODEL=<name>             names configs/models/<name>.yaml
#: RUN=<name>               names what came of it (default: the model's name)
#: SET="train.epochs=3"     changes settings, several separated by spaces
#: ROUNDS=2                 how many rounds of make pseudo-rounds
#: WEIGHTS=<folder>         local ImageNet weights (default: an installed package of weights, or Keras downloads them)
#: TRUNCATE_AT=<layer>      last layer kept of the backbone (make linear-probe)
#: HEAD=linear_probe        linear_probe or dense (make linear-probe)
#: TRAIN=1                  train what the table of ablations lacks (make ablation)
#: N_DRIVERS="3 6 10"       numbers of drivers to train on (make data-scaling), besides all
#: SPACE=tiny               names configs/searches/<name>.yaml, what make search varies (default: MODEL's, or default)
#: TRIALS=20                that a search shall have; more continue with it
#: SKIP_TRIAL=7             trial that make search gives up
#: LR_MIN=1e-7 LR_MAX=1 LR_STEPS=100  rates between which make lr-find rises, and in how many steps
#: STUDY=ablations          train a run (or predict with it) in a study's own place, where ensembles do not see it
#: FOLD=2                   one fold alone
#: TTA="ten_crop shifts"    of centre, multi_scale, five_crop, shifts, ten_crop, ten_crop_keep, ten_crop_swap (ensemble, review: one)
#: MODELS="a b"             runs to average or score (default: every finished one); models that make train trains
#: NAME=ensemble            names the submission (make trace: whose pipeline is followed; make search: the search; make reproduce: the recipe)
#: BLEND=mean               mean, geometric, weighted, weighted_geometric, greedy or per_class (make blends compares them)
#: CLASS_BALANCE=<features>  balance classes within each driver, told apart by looks, or none (docs/explain/post-processing.md)
#: KNN=<features>           smooth over neighbours among clips' frames, or none (make knn compares features)
#: EMBEDDINGS="a:cut:2x2 b"  <model>[:<last layer>][:<places>] whose pretrained backbone images are compared in (make knn: efficientnet_lite0)
#: EMBEDDINGS=own           neighbours on make review's page by the first run's own embeddings
#: CALIBRATE=none           none, temperature or bias
#: CLIP=1e-5                lowest probability of a submission, or fitted
#: SIZE=180x240             pack size, height x width; with regions 180x240-whole+head (default: the model's)
#: DRIVERS TEST_DRIVERS CLIPS FRAMES SEED  what make synthetic draws; SEED: what make search tries, too
#: FORCE=1                  replace what is there
#: SKIP_INVALID=1           resume without invalid images and table rows, and record them
#: SOURCE=<folder>          the full download that make subset picks from
#: FILE=<csv>               the submission that make check checks and make submit uploads
#: FILE=<pth>               the PyTorch checkpoint that make convert makes a weight file of, in the folder WEIGHTS
#: FILE=<file>.onnx         what make export writes (default: build/<dataset>/export/RUN.keras)
#: FORMAT=openvino          of make export: keras, onnx, openvino or litert (default: as FILE ends, else keras)
#: PORT=8000                of make serve; of the first make node (6379)
#: EXTRAS="onnx cluster"    what make setup installs beside: onnx, to write and try .onnx files; cluster, for ENGINE=ray and make search;
#:                          weights, of efficientnet_lite1 and 2; openvino, which predicts quicker on a processor; litert, to write .tflite files
#:                          tracking, for SET="tracking=mlflow" or wandb
#: ENGINE=ray               make train, make search and make predict as tasks on a cluster (default: here, one after the other)
#: ADDRESS=auto             of the cluster: this machine's, or <first>:6379 (default: this machine alone; make node: is the first)
#: GPUS_PER_FOLD=1          that a task takes, also 0.5 (default: 1 where there are any)
#: CPUS_PER_FOLD=8          cores, and so threads, that a task takes (default: a GPU's share, or the smallest machine's all)
#: MEMORY_PER_FOLD=24       GB that are kept free for a task (default: 0)
#: SHARDS=4                 tasks that ENGINE=ray makes of make predict
#: FOLDER=/data/dw          for make node's copies of the asking machine's files (default: none, that folder is shared)
#: IP=10.0.0.2              by which other machines reach make node's
#: MESSAGE="one line"       what Kaggle and submissions/ledger.csv say of it
#: WAIT=1800                seconds that make submit waits for the score
#: IMAGE="a.jpg images"     images and folders of images that make classify names; the image that make trace follows
#: CAM=out.png              overlays of make classify: a file, a folder, or a pattern like "maps/{image}.png"
#: N_CAMS=60                class activation maps of so many images at the head of the lists of make review (default: none)
#: CLASS=<class>            the class that overlays show: id, name or number (default: the likeliest)
#: TOP=5                    how many classes make classify prints
#: ACCOUNT=<name>           your name in Kaggle's addresses (make notebook; default: the token's)
#: HOURS=11                 of Kaggle's 12 until its notebook stops by itself
#: RESUME_FROM=<account>/<notebook>  whose output on Kaggle the next notebook resumes from
#: PACKAGES="simplejpeg"    that Kaggle's image lacks (make notebook)
#: VENDOR=1                 take wheels of PACKAGES along, for notebooks without internet
#: MACHINE=NvidiaTeslaT4    Kaggle's name of the accelerator
#: RUNS_FROM=<folder>       what came back from Kaggle (make import-runs)
#: KAGGLE_WEIGHTS=<account>/<name>  data set on Kaggle whose weight files the notebook takes by kagglehub (default: WEIGHTS= travels along)
#: KAGGLE=<path>            the Kaggle client (default: make installs one into .venv-kaggle)
#: BENCHMARKS="pack load"   rows of make bench: imports memory knn leakage pack load crops engine precision train cache, and by name alone end_to_end growth
#: IMAGES=1000              images that make bench and make profile measure with
#: REPEAT=3                 repetitions that they time, 3 or more
#: FULL=1                   rows of make bench that depend on the number of images at the competition's
#: DOCS=1                   put the table of make bench into docs/dev/benchmarks.md
#: JOBS=2                   processes that run tests side by side (1.5 to 4 GB each)
#: PYTEST_ADDOPTS="-k crop"  more words for pytest, as it reads them itself (make test, test-slow, test-all)
#: STRICT=1                 a test that is skipped fails the run, but for real data that is not there
#: UPGRADE=1                make lock takes the newest versions
#: KILLS=60                 random kills of make test-kills
#: COMMANDS="pack score"    what make test-size measures again (default: everything, again)
#: PYTHON3=python3          the Python that builds .venv, 3.11 or later
#: ACCELERATOR=cuda         install TensorFlow for an NVIDIA GPU
#: DETAILS=1                scores per fold, driver and class as well (make score)
#: JSON=1                   print what make status says as JSON
#: DEBUG=1                  show tracebacks
#: V=1                      show the commands that make runs

CONVERTING      = $(filter convert,$(MAKECMDGOALS))
BUILT_RUNS      = $(wildcard build/$(call name,$(DATASET))/runs/*/run.json)
WITH_RUNS       = $(sort $(foreach each,$(wildcard build/*/runs/*/run.json),DATASET=$(word 2,$(subst /, ,$(each)))))
BUILT_CSV       = $(wildcard submissions/$(call name,$(DATASET))/*.csv)
ELSEWHERE       = ; $(DATASET) has none (make status says why)$(if $(WITH_RUNS),; what is here needs $(WITH_RUNS))
EXPECTED_MODEL  = $(if $(CONVERTING),one of: googlenet squeezenet_torch squeezenet_v1_1,like tiny or efficientnet_lite0: a file of configs/models without .yaml)
EXPECTED_SOURCE = the folder of the full download
EXPECTED_NAME   = $(if $(filter pseudo-labels,$(MAKECMDGOALS)),what the ensemble of teachers is called,the name of a submission$(if $(BUILT_CSV),: $(basename $(notdir $(wordlist 1,4,$(BUILT_CSV)))),$(ELSEWHERE)))
EXPECTED_RUN    = the name of a trained run$(if $(BUILT_RUNS),: $(patsubst %/run.json,%,$(BUILT_RUNS:build/$(call name,$(DATASET))/runs/%=%)),$(ELSEWHERE))
EXPECTED_FILE   = $(if $(CONVERTING),a PyTorch checkpoint (.pth),a submission CSV$(if $(BUILT_CSV),: $(wordlist 1,4,$(BUILT_CSV)),$(ELSEWHERE)))
EXPECTED_WEIGHTS = the folder of local weights
EXPECTED_RUNS_FROM   = a folder of runs that were trained elsewhere
EXPECTED_IMAGE  = $(if $(filter trace,$(MAKECMDGOALS)),the name of one image,images or folders of images)
EXPECTED_MESSAGE = one line on what it is

need-%:
	$(if $($*),,$(error make $(MAKECMDGOALS) needs $*=..., $(EXPECTED_$*)))@:

# runs before anything is installed: with .venv where its Python works, else with PYTHON3, on the standard library alone
doctor: ## what is fine here, what is not, and what to do about it; installs nothing
	$(Q)python='$(PYTHON)'; "$$python" -c '' 2>/dev/null || python=$(PYTHON_3); \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null || \
	  { echo "problem  Python        $$python does not run or is older than 3.8. Install Python 3.11 to 3.13, or name one:" \
	    'make doctor PYTHON3=python3.12.'; exit 2; }; \
	PYTHONPATH=src:. "$$python" -m scripts.doctor $(DATA_OPT) $(call place,weights,WEIGHTS) \
	  --accelerator=$(call q,$(ACCELERATOR)) --make-version=$(call q,$(MAKE_VERSION))

status: setup ## what there is: images, folds, packs, every run and fold, submissions; what is stale, and why; JSON=1 as JSON
	$(DW) status $(DATA_OPT) $(call flag,json,JSON)

setup: $(RUNTIME) $(patsubst %,$(VENV)/.extra-%,$(filter onnx openvino litert cluster tracking backends weights,$(EXTRAS))) ## build .venv from the pinned requirements, with EXTRAS="onnx cluster"

# an environment is finished while its stamp holds what its requirements hold (a clone changes dates, not contents) and its Python is there:
# one that a container made, or whose Python was removed, is made again
finished = { test -x $(dir $(2))bin/python && cmp -s $(1) $(2); }
install  = scripts/install.py $(abspath $(1)) $(2) $(3)

$(RUNTIME): FORCE
	$(if $(wildcard $(PINNED)),,$(error ACCELERATOR=$(ACCELERATOR): expected cpu or cuda))
	@$(call finished,$(PINNED),$@) || { \
	  $(PYTHON_3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo $(call q,$(PYTHON3) does not run or is older than Python 3.11; name another: make PYTHON3=python3.12 $(MAKECMDGOALS)) >&2; \
	      exit 2; }; \
	  $(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON_3) -m venv --clear $(VENV); \
	  $(PYTHON) $(call install,$(PYTHON),$(PINNED),$@); }

$(DEV): $(RUNTIME) FORCE
	@$(call finished,requirements/dev.txt,$@) || $(PYTHON) $(call install,$(PYTHON),requirements/dev.txt,$@)

$(VENV)/.extra-%: $(RUNTIME) FORCE
	@$(call finished,requirements/$*.txt,$@) || $(PYTHON) $(call install,$(PYTHON),requirements/$*.txt,$@)

# an environment of its own: the client's dependencies need not fit TensorFlow's
$(CLIENT): FORCE
	@$(call finished,requirements/kaggle.txt,$@) || { \
	  .venv-kaggle/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON_3) -m venv --clear .venv-kaggle; \
	  $(PYTHON_3) $(call install,.venv-kaggle/bin/python,requirements/kaggle.txt,$@); }

client: $(CLIENT) ## the official Kaggle client, into .venv-kaggle

# and another: the command line and PyTorch alone, to read checkpoints once
$(TORCH): FORCE
	@$(call finished,requirements/torch.txt,$@) || { \
	  .venv-torch/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON_3) -m venv --clear .venv-torch; \
	  $(PYTHON_3) $(call install,.venv-torch/bin/python,requirements/torch.txt,$@); }

FORCE:

demo: setup ## fine-tune an ImageNet network and train a small one on synthetic drivers, up to a checked submission: no download, no GPU, minutes
	$(DEMO) synthetic
	$(DEMO) train MODEL=efficientnet_lite0_96x128 SET="train.parallel_folds=2"
	$(DEMO) train MODEL=tiny SET="train.parallel_folds=2"
	$(DEMO) ensemble NAME=single_image MODELS="efficientnet_lite0_96x128 tiny" CALIBRATE=temperature
	$(DEMO) ensemble NAME=demo MODELS="efficientnet_lite0_96x128 tiny" CALIBRATE=temperature \
	  CLASS_BALANCE=efficientnet_lite0_96x128 KNN=efficientnet_lite0_96x128
	$(DEMO) check FILE=submissions/demo/demo.csv
	$(DEMO) report
	$(Q)echo; PYTHONPATH=src:. $(PYTHON) -m scripts.demo_summary efficientnet_lite0_96x128 tiny single_image demo

# what a download is refused for without Kaggle: before its client is installed
.PHONY: downloadable
downloadable: setup
	$(DW) data $(DATA_OPT) --dry-run

data: setup $(if $(KAGGLE),,downloadable $(CLIENT)) ## download the competition into DATA, unpack and verify it (needs a Kaggle token)
	$(DW) data $(DATA_OPT) $(call place,client,KAGGLE)

synthetic: setup ## draw a competition (DATASET=demo)
	$(DW) synthetic --dataset=$(DEMO_DATA) $(call place,data,DATA) \
	  $(call option,drivers,DRIVERS) $(call option,test-drivers,TEST_DRIVERS) $(call option,clips,CLIPS) \
	  $(call option,frames,FRAMES) $(call option,size,SIZE) $(call option,seed,SEED) $(call flag,force,FORCE)

subset: need-SOURCE setup ## pick a data set's images out of a full download: SOURCE=<folder> DATASET=statefarm_mini
	$(DW) subset $(DATA_OPT) --source=$(call q,$(SOURCE))

folds: setup ## write folds/<dataset>.csv by driver, or check the one there
	$(DW) folds $(DATA_OPT) $(call flag,force,FORCE) $(call flag,skip-invalid,SKIP_INVALID)

$(FOLDS): | setup
	$(DW) folds $(DATA_OPT) $(call flag,skip-invalid,SKIP_INVALID)

leakage: setup | $(FOLDS) ## a random split beside the driver split, by the same classifiers on thumbnails (docs/explain/grouped-validation.md)
	$(DW) leakage $(DATA_OPT)

trace: need-IMAGE setup ## IMAGE=<name>'s way through the line, as far as it is built: table, fold, pack, models, pipeline NAME, submissions
	$(DW) trace $(DATA_OPT) $(call option,models,MODELS) $(call option,name,NAME) -- $(call q,$(IMAGE))

pack: setup | $(FOLDS) ## pack the images into HDF5, at SIZE or as MODEL asks
	$(DW) pack $(DATA_OPT) $(call option,size,SIZE) $(call option,model,MODEL) $(call option,set,SET) $(call flag,force,FORCE) \
	  $(call flag,skip-invalid,SKIP_INVALID)

preview: setup | $(FOLDS) ## draw what training by MODEL (or a RUN, as it was started) sees into build/<dataset>/preview
	$(if $(or $(RUN),$(MODEL)),,$(error make preview needs MODEL=..., $(EXPECTED_MODEL)))
	$(if $(MODEL),$(DW) pack $(DATA_OPT) --model=$(call q,$(MODEL)) $(call option,set,SET) $(call flag,skip-invalid,SKIP_INVALID))
	$(DW) preview $(DATA_OPT) $(call option,model,MODEL) $(call option,run,RUN) $(call option,set,SET) $(call option,fold,FOLD)

# MODEL, or several MODELS: each packed as it asks
TRAINED = $(strip $(or $(MODEL),$(if $(filter MODELS,$(GIVEN)),$(MODELS))))
ON_CLUSTER = $(call option,engine,ENGINE) $(call option,address,ADDRESS) $(call option,gpus,GPUS_PER_FOLD) \
  $(call option,cpus,CPUS_PER_FOLD) $(call option,memory,MEMORY_PER_FOLD)

# a misspelt model, missing images and missing weights are refused before folds and packs are made
.PHONY: preflight
preflight: setup
	$(DW) preflight $(DATA_OPT) $(call option,set,SET) $(call place,weights,WEIGHTS) -- $(call q,$(TRAINED))

train: $(if $(TRAINED),,need-MODEL) preflight | $(FOLDS) ## train every fold of MODEL (or MODELS) that is not finished, and predict; ENGINE=ray: on a cluster (docs/how-to/cluster.md)
	$(Q)$(foreach model,$(TRAINED),PYTHONPATH=src $(PYTHON) -m driverwatch pack $(DATA_OPT) --model=$(call q,$(model)) \
	  $(call option,set,SET) $(call flag,skip-invalid,SKIP_INVALID) &&) :
	$(DW) train $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,fold,FOLD) $(call flag,force,FORCE) $(call option,study,STUDY) $(ON_CLUSTER) -- $(call q,$(TRAINED))

node: setup ## lend this machine to a Ray cluster until Ctrl-C: its first one, or one more at ADDRESS=<first>:6379 (docs/how-to/cluster.md)
	$(DW) node $(call option,address,ADDRESS) $(call option,ip,IP) $(call option,port,PORT) $(call option,folder,FOLDER)

linear-probe: need-MODEL preflight | $(FOLDS) ## MODEL's backbone as it is (TRUNCATE_AT= earlier), its features once, a HEAD on them per fold; predictions as train's
	$(DW) pack $(DATA_OPT) --model=$(call q,$(MODEL)) $(call option,set,SET) $(call flag,skip-invalid,SKIP_INVALID)
	$(DW) linear-probe $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,truncate-at,TRUNCATE_AT) $(call option,head,HEAD) $(call option,fold,FOLD) $(call flag,force,FORCE) -- $(call q,$(MODEL))

reproduce: setup | $(FOLDS) ## follow configs/recipes/NAME.yaml (default: DATASET) to its submissions, resuming from whatever is built
	$(DW) reproduce $(DATA_OPT) $(call place,weights,WEIGHTS) $(call option,name,NAME)

ablation: setup | $(FOLDS) ## write experiments/results/DATASET/ablations.md: what each ablation is worth out of fold; TRAIN=1 trains what is missing
	$(DW) ablation $(DATA_OPT) $(call place,weights,WEIGHTS) $(call flag,train,TRAIN)

study: setup | $(FOLDS) ## train every run of configs/studies/NAME.yaml (default: freezing) and write experiments/results/DATASET/study-NAME.md
	$(DW) study $(DATA_OPT) $(call place,weights,WEIGHTS) -- $(call q,$(if $(filter NAME,$(GIVEN)),$(NAME),freezing))

data-scaling: need-MODEL preflight | $(FOLDS) ## train MODEL on N_DRIVERS drivers of each fold and on all; write experiments/results/DATASET/curve-MODEL.md: what more drivers are worth
	$(DW) data-scaling $(DATA_OPT) $(call option,n-drivers,N_DRIVERS) $(call option,set,SET) $(call place,weights,WEIGHTS) -- $(call q,$(MODEL))

search: need-MODEL preflight | $(FOLDS) ## search MODEL's settings within SPACE by out-of-fold loss, and score the best on other folds; ENGINE=ray: on a cluster (docs/how-to/train-and-tune.md)
	$(DW) search $(DATA_OPT) $(call option,space,SPACE) $(call option,trials,TRIALS) $(call option,name,NAME) \
	  $(call option,seed,SEED) $(call option,set,SET) $(call place,weights,WEIGHTS) $(call option,skip-trial,SKIP_TRIAL) $(call flag,force,FORCE) \
	  $(ON_CLUSTER) -- $(call q,$(MODEL))

lr-find: need-MODEL preflight | $(FOLDS) ## the loss of MODEL's last stage at rates rising from LR_MIN to LR_MAX in LR_STEPS steps, plotted, with two rates to try
	$(DW) lr-find $(DATA_OPT) $(call option,fold,FOLD) $(call option,lr-min,LR_MIN) $(call option,lr-max,LR_MAX) \
	  $(call option,lr-steps,LR_STEPS) $(call option,set,SET) $(call place,weights,WEIGHTS) -- $(call q,$(MODEL))

pseudo-rounds: need-RUN setup ## train ROUNDS of pseudo-labels from RUN on (RUN-round1, ...; SET="train.pseudo.threshold=0.9"), compare them out of fold
	$(DW) pseudo-rounds $(DATA_OPT) $(call option,rounds,ROUNDS) $(call option,set,SET) $(call place,weights,WEIGHTS) -- $(call q,$(RUN))

refit: need-RUN setup ## train RUN-all: RUN's settings on all drivers, for the epochs that RUN's folds chose
	$(DW) refit $(DATA_OPT) $(call option,set,SET) $(call place,weights,WEIGHTS) $(call option,fold,FOLD) -- $(call q,$(RUN))

# the development requirements have what writes and checks notebooks
notebook: need-MODEL $(DEV) | $(FOLDS) ## a notebook for Kaggle or Colab that trains MODEL, and the data set it needs; prints how they go up (docs/how-to/kaggle-gpu.md)
	$(DW) notebook $(DATA_OPT) $(call option,run,RUN) $(call option,set,SET) $(call place,weights,WEIGHTS) \
	  $(call option,tta,TTA) $(call option,hours,HOURS) $(call place,account,ACCOUNT) $(call option,name,NAME) \
	  $(call option,resume-from,RESUME_FROM) $(call option,packages,PACKAGES) $(call flag,vendor,VENDOR) $(call option,machine,MACHINE) \
	  $(call option,kaggle-weights,KAGGLE_WEIGHTS) -- $(call q,$(MODEL))

import-runs: need-RUNS_FROM setup ## check runs trained elsewhere, in the folder RUNS_FROM (or RUN of them), and bring them in beside those here
	$(DW) import-runs $(DATA_OPT) $(call option,run,RUN) $(call flag,force,FORCE) -- $(call q,$(RUNS_FROM))

predict: setup ## predict with the trained RUN (default: MODEL's) under TTA, by SET="predict.engine=..."; ENGINE=ray: in SHARDS on a cluster
	$(if $(or $(RUN),$(MODEL)),,$(error make predict needs RUN=..., $(EXPECTED_RUN)))
	$(DW) predict $(DATA_OPT) $(call option,tta,TTA) $(call option,fold,FOLD) $(call option,set,SET) $(call option,study,STUDY) \
	  $(call option,shards,SHARDS) $(ON_CLUSTER) -- $(call q,$(or $(RUN),$(MODEL)))

tta: need-RUN setup ## log loss and cost of every TTA set that RUN has predicted
	$(DW) tta $(DATA_OPT) -- $(call q,$(RUN))

ensemble: setup ## blend MODELS into submissions/<dataset>/NAME.csv
	$(DW) ensemble $(DATA_OPT) $(call option,models,MODELS) $(call option,name,NAME) $(call option,tta,TTA) $(call option,fold,FOLD) \
	  $(call option,blend,BLEND) $(call option,class-balance,CLASS_BALANCE) $(call option,knn,KNN) $(call option,calibrate,CALIBRATE) $(call option,clip,CLIP) $(call place,weights,WEIGHTS)

pseudo-labels: need-NAME setup ## keep what MODELS, put together as in an ensemble, make of images without labels: SET="train.pseudo.labels=NAME"
	$(DW) pseudo-labels $(DATA_OPT) $(call option,models,MODELS) $(call option,tta,TTA) $(call option,blend,BLEND) \
	  $(call option,class-balance,CLASS_BALANCE) $(call option,knn,KNN) $(call option,calibrate,CALIBRATE) \
	  $(call place,weights,WEIGHTS) -- $(call q,$(NAME))

blends: setup ## every blend and calibration of MODELS: loss where fitted, loss on drivers left out, reliability
	$(DW) blends $(DATA_OPT) $(call option,models,MODELS) $(call option,tta,TTA)

knn: setup ## EMBEDDINGS of all images, and what smoothing MODELS over neighbours in them scores (docs/explain/post-processing.md)
	$(DW) knn $(DATA_OPT) $(call option,embeddings,EMBEDDINGS) $(call option,models,MODELS) $(call place,weights,WEIGHTS)

submissions: setup ## write each run's TTA sets and fold models as submissions
	$(DW) submissions $(DATA_OPT) $(call option,models,MODELS)

check: need-FILE setup ## check FILE=<submission.csv> as Kaggle would
	$(DW) check $(DATA_OPT) -- $(call q,$(FILE))

# what an upload is refused for without Kaggle: before its client is installed
.PHONY: uploadable
uploadable: need-FILE need-MESSAGE setup
	$(DW) submit $(DATA_OPT) --message=$(call q,$(MESSAGE)) --dry-run -- $(call q,$(FILE))

submit: need-FILE need-MESSAGE setup $(if $(KAGGLE),,uploadable $(CLIENT)) ## upload FILE=<submission.csv> with MESSAGE="...", wait for its score, note it in the ledger
	$(DW) submit $(DATA_OPT) --message=$(call q,$(MESSAGE)) $(call place,client,KAGGLE) $(call option,wait,WAIT) $(call flag,force,FORCE) -- $(call q,$(FILE))

label-issues: need-NAME setup ## list probable label errors by submission NAME's out-of-fold probabilities, for SET=train.label_issues=drop
	$(DW) label-issues $(DATA_OPT) $(call flag,force,FORCE) -- $(call q,$(NAME))

score: setup ## out-of-fold log loss per model in a few lines; DETAILS=1: also per fold, driver and class
	$(DW) score $(DATA_OPT) $(call option,models,MODELS) $(call flag,details,DETAILS)

report: setup ## one page, build/<dataset>/report/index.html, of whatever is built: scores, confusions, curves, ablations, settings
	$(DW) report $(DATA_OPT)

card: need-NAME setup ## write submissions/DATASET/cards/NAME: the submission's model card and Kaggle's three files for winners
	$(DW) card $(DATA_OPT) -- $(call q,$(NAME))

review: setup ## write build/<dataset>/report/review.html: images by loss, disagreement and entropy of MODELS, neighbours by EMBEDDINGS, N_CAMS
	$(DW) review $(DATA_OPT) $(call option,models,MODELS) $(call option,tta,TTA) $(call option,embeddings,EMBEDDINGS) \
	  $(call option,n-cams,N_CAMS) $(call place,weights,WEIGHTS)

# the command splits IMAGE at blanks and expands * unless it is one file's name
classify: need-IMAGE setup ## name what is on IMAGE: ImageNet's classes (MODEL=<backbone>), the driver classes with RUN=<run>
	$(DW) classify $(call option,model,MODEL) $(call option,run,RUN) $(DATA_OPT) \
	  $(call option,fold,FOLD) $(call place,weights,WEIGHTS) $(call option,cam,CAM) $(call option,class,CLASS) \
	  $(call option,top,TOP) -- $(call q,$(IMAGE))

export: need-RUN setup ## write RUN's fold models (or FOLD's) as one FILE for Keras, ONNX, OpenVINO or LiteRT (FORMAT), preprocessing and class names inside
	$(DW) export $(DATA_OPT) $(call option,fold,FOLD) $(call option,file,FILE) $(call option,format,FORMAT) $(call flag,force,FORCE) -- $(call q,$(RUN))

serve: need-RUN setup ## a page on this machine, http://127.0.0.1:PORT: drop an image, see RUN's probabilities and a class activation map
	$(DW) serve $(DATA_OPT) $(call option,fold,FOLD) $(call option,port,PORT) -- $(call q,$(RUN))

backbones: setup ## the backbone table, or all that it says of MODEL
	$(DW) backbones $(call place,weights,WEIGHTS) $(if $(filter MODEL,$(GIVEN)),-- $(call q,$(MODEL)))

layers: need-MODEL setup ## MODEL's layers: blocks, shapes, parameters, what is frozen, where it may be cut
	$(DW) layers $(call option,set,SET) -- $(call q,$(MODEL))

bench: setup ## the pipeline beside baselines and upper bounds, a ratio a row, on synthetic images or DATASET's; BENCHMARKS= some, FULL=1 at the competition's size
	$(MEASURE) bench --dataset=$(DEMO_DATA) $(call place,data,DATA) \
	  $(call option,benchmarks,BENCHMARKS) $(call option,model,MODEL) $(call option,set,SET) $(call option,images,IMAGES) \
	  $(call option,repeat,REPEAT) $(call flag,full,FULL) $(call flag,docs,DOCS) $(call place,weights,WEIGHTS)

profile: need-MODEL setup ## where the time of MODEL's training step goes: reading, augmentation, transfer, forward, backward, update
	$(MEASURE) profile --dataset=$(DEMO_DATA) $(call place,data,DATA) \
	  $(call option,set,SET) $(call option,images,IMAGES) $(call option,repeat,REPEAT) -- $(call q,$(MODEL))

convert: need-FILE need-MODEL need-WEIGHTS $(TORCH) ## make MODEL's file in the folder WEIGHTS of FILE=<public PyTorch checkpoint>
	$(Q)PYTHONPATH=src .venv-torch/bin/python -m driverwatch convert --model=$(call q,$(MODEL)) --weights=$(call q,$(WEIGHTS)) -- $(call q,$(FILE))

AUDIT = pip-audit==2.10.1 --progress-spinner=off --desc=off --strict  # a package without data on it fails it

# tests of one file share a worker, since its fixtures serve them all; a test of 15 minutes hangs
PYTEST    = $(Q)$(PYTHON) -m pytest
PARALLEL  = -n $(call q,$(JOBS)) --dist loadfile --durations=25
SLOW_NEED = $(DEV) $(patsubst %,$(VENV)/.extra-%,cluster onnx openvino litert tracking backends weights)

test: $(DEV) ## the tests, in minutes: every room, one small training per behaviour, the command line end to end
	$(PYTEST) $(PARALLEL)

test-slow: $(SLOW_NEED) ## kills, full disks, other backends, browser pages, whole experiments, every invalid input (13 minutes)
	$(PYTEST) $(PARALLEL) -m "slow and not zoo and not cluster and not torch"

test-all: $(SLOW_NEED) $(TORCH) ## all tests: every backbone built, trained one step, saved and loaded; a cluster; PyTorch's layers
	$(PYTEST) $(PARALLEL) -m ""

coverage: $(SLOW_NEED) $(TORCH) ## line coverage per room of make test alone and of all tiers together, in build/coverage (an hour and more)
	$(Q)$(PYTHON) scripts/coverage_rooms.py build/coverage -- $(PARALLEL)

docs: $(DEV) ## write docs/reference/ from the Makefile, the typed settings, the backbone table and the tests (minutes)
	$(Q)PYTHONPATH=src:tests $(PYTHON) -m support.invalid_page
	$(Q)WRITE_DOCS=1 $(PYTHON) -m pytest tests/cli/test_commands.py tests/config/test_reference.py tests/repository/test_results_page.py

docs-images: $(DEV) ## write docs/images/*.png, screenshots of the demo's report, review and serve pages (needs Chromium and make demo)
	$(Q)PYTHONPATH=src:. $(PYTHON) -m scripts.docs_images

test-torch: $(DEV) $(TORCH) ## the networks of converted checkpoints against the same layers in PyTorch
	$(PYTEST) tests/models/test_torch.py -m torch

test-cluster: $(DEV) $(VENV)/.extra-cluster ## folds on a cluster of two nodes on this machine, one killed under its fold (minutes)
	$(PYTEST) tests/remote/test_cluster.py tests/remote/test_loopback.py -m ""

test-kills: $(DEV) ## kill the commands before each change they make, and KILLS times at random
	$(Q)PYTHONPATH=src:tests $(PYTHON) -m support.kills $(call q,$(or $(KILLS),60))

test-size: $(DEV) ## time and memory of each command at 102,150 synthetic images against 9,900 (a quarter of an hour), or of COMMANDS again
	$(Q)PYTHONPATH=src:tests $(PYTHON) -m support.fullsize $(foreach step,$(COMMANDS),$(call q,$(step)))

lint: $(DEV) ## ruff, mypy, and the pages' words, lines, links and sentences (scripts/prose.py)
	$(PYTHON) -m ruff check src tests scripts benchmarks
	$(PYTHON) -m ruff format --check --quiet src tests scripts benchmarks
	$(PYTHON) -m mypy
	PYTHONPATH=. $(PYTHON) scripts/prose.py

lock: $(DEV) ## pin requirements/*.in with hashes into requirements/*.txt; UPGRADE=1 takes the newest versions that fit
	$(Q)$(PYTHON) scripts/lock.py $(call flag,upgrade,UPGRADE)

audit: $(DEV) ## look the pinned packages up among known vulnerabilities
	$(Q)for file in cpu cuda onnx openvino litert cluster tracking weights dev kaggle; do \
	  $(PYTHON) -m uv tool run --quiet $(AUDIT) --disable-pip --require-hashes --requirement requirements/$$file.txt || exit 1; done

clean: ## remove build/ (packs, runs); folds and submissions stay
	rm -rf build
