# The pipeline: .venv -> executed notebooks -> site -> checks. `make help` lists what can be asked for.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test lint executed-book executed-quick executed-paper lab pdf links models benchmarks readme-figure lock clean

# What may be given on the command line, as in `make book JOBS=4`:
PYTHON ?= python3# the Python (3.11 or newer) that makes .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu# where PyTorch comes from; for CUDA .../whl/cu130
JOBS ?= 2# notebooks executed side by side
THREADS ?= 1# threads each of them may use
TORCH ?= $(shell sed -n 's/^torch==//p' requirements.lock)# PyTorch's version

BIN := .venv/bin
READY := .venv/.ready
PACKAGE := $(shell find dfaccel -name '*.py' -o -name '*.mplstyle')
PAGES := _config.yml _toc.yml notebooks/expected.yml $(wildcard notebooks/results/*.csv) $(shell find book -type f -not -path '*/__pycache__/*')
STEMS := $(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/[0-9]*.ipynb)))
MODELS := hernquist_iso hernquist_aniso hernquist_iso_free hernquist_aniso_free \
	hernquist_iso_1pct_naive hernquist_iso_1pct hernquist_iso_10pct_naive hernquist_iso_10pct disc king nfw

# The models that a notebook loads; a notebook not named here loads none.
LOADS_04_learning_a_galaxy := hernquist_iso hernquist_aniso hernquist_iso_free
LOADS_05_recovering_accelerations := hernquist_iso hernquist_aniso hernquist_iso_free hernquist_aniso_free
LOADS_06_four_galaxies_four_figures := $(filter-out disc king nfw,$(MODELS))
LOADS_07_what_buys_accuracy := hernquist_iso_free hernquist_aniso_free
LOADS_08_can_you_trust_it := hernquist_iso
LOADS_09_weighing_the_galaxy := hernquist_iso hernquist_aniso hernquist_iso_free
LOADS_11_how_far_apart := hernquist_iso hernquist_iso_free
LOADS_13_what_a_stream_does := disc
LOADS_14_your_own_stars := king nfw

# The tables of results that a notebook reads.
READS_06_four_galaxies_four_figures := $(wildcard notebooks/results/published_*.csv)
READS_07_what_buys_accuracy := notebooks/results/ablation.csv notebooks/results/error_grid.csv
READS_08_can_you_trust_it := notebooks/results/coverage.csv
READS_12_data_or_network := $(wildcard notebooks/results/variance_*.csv)
READS_14_your_own_stars := notebooks/results/own_stars.csv

# Inherited by every notebook, test and build. Two notebooks run at once, so each keeps to its own core.
export OMP_NUM_THREADS := $(THREADS)
export MKL_NUM_THREADS := $(THREADS)
export OPENBLAS_NUM_THREADS := $(THREADS)
export TQDM_DISABLE := 1
export PYTHONDONTWRITEBYTECODE :=
CHECK = $(BIN)/python -W ignore::RuntimeWarning:runpy -m dfaccel.records check
PARALLEL = $(MAKE) --no-print-directory --keep-going -j$(JOBS)

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1@\2/' | column -t -s@ 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST)
	@echo "and, for example, make book JOBS=4 THREADS=2; make TORCH_INDEX=https://download.pytorch.org/whl/cu130 .venv/.ready"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dfaccel needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try make PYTHON=python3.12" % sys.version_info[:2])'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: a few minutes the first time"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --retries 0 --extra-index-url $(TORCH_INDEX) torch==$(TORCH)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --prefer-binary -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

# One executed notebook: a target for each profile and notebook.
define executed
_build/executed/$(1)/%.ipynb: notebooks/%.ipynb notebooks/parameters.yml notebooks/execute.py $$(PACKAGE) $$(READY)
	@echo "executing $$< ($(1))"
	@$$(BIN)/python notebooks/execute.py $$< $$@ --profile $(1)
executed-$(1): $$(STEMS:%=_build/executed/$(1)/%.ipynb)
endef
$(foreach profile,quick book paper,$(eval $(call executed,$(profile))))

define loads
_build/executed/$(1)/$(2).ipynb: $$(foreach model,$$(LOADS_$(2)),models/$$(model)/ensemble.json models/$$(model)/ensemble.safetensors) $$(READS_$(2))
endef
$(foreach profile,quick book paper,$(foreach stem,$(STEMS),$(eval $(call loads,$(profile),$(stem)))))

models/%/ensemble.json models/%/ensemble.safetensors:
	@echo "models/$* is not there: git checkout models/$*, or train it with make models" && exit 1

# Results of notebooks that are no longer there would stay in the tables of the site.
prune = rm -f $(filter-out $(STEMS:%=_build/executed/$(1)/%.ipynb),$(wildcard _build/executed/$(1)/*.ipynb))

_build/html/index.html: $(STEMS:%=_build/executed/book/%.ipynb) $(PAGES)
	@$(BIN)/python book/build.py --profile book --output _build/html

_build/site-quick/index.html: $(STEMS:%=_build/executed/quick/%.ipynb) $(PAGES)
	@$(BIN)/python book/build.py --profile quick --output _build/site-quick

book: $(READY)  ## execute the notebooks as published and build the site: _build/html/index.html
	@$(call prune,book)
	@$(PARALLEL) _build/html/index.html
	@$(CHECK) _build/executed/book notebooks/expected.yml --profile book

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/codespell

test: lint  ## lint, run every notebook (quick), check its records, build the site strictly, run the tests
	@$(call prune,quick)
	@$(PARALLEL) _build/site-quick/index.html
	@$(CHECK) _build/executed/quick notebooks/expected.yml --profile quick
	@$(BIN)/python -m pytest -n $(JOBS)

lab: $(READY)  ## open JupyterLab on the notebooks
	@env -u TQDM_DISABLE -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS $(BIN)/jupyter lab --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/notebooks/01_stars_and_gravity.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

pdf: book  ## print the book into one file: _build/dfaccel.pdf (needs Chromium)
	@$(BIN)/python book/pdf.py _build/html _build/dfaccel.pdf

links: $(STEMS:%=_build/executed/book/%.ipynb) $(READY)  ## try every address the book cites (needs the network)
	@$(BIN)/python book/build.py --profile book --output _build/links --links

models: $(READY)  ## train the shipped models again (minutes each)
	@for model in $(MODELS); do $(BIN)/python models/train.py $$model || exit 1; done

benchmarks:  ## list the side-by-side measurements and what each answers
	@for script in $(filter-out benchmarks/table.py,$(wildcard benchmarks/*.py)); do echo "$(BIN)/python $$script"; sed -n '1s/^"""/    /p' $$script; done

readme-figure: _build/executed/book/05_recovering_accelerations.ipynb  ## copy the README's figure out of the executed chapter 5
	@$(BIN)/python book/readme_figure.py $< book/_static/readme_figure.png

lock:  ## make requirements.lock again from pyproject.toml, in a fresh environment (TORCH=... for another PyTorch)
	@rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	@_build/lock/bin/python -m pip install -q --no-deps --retries 0 --extra-index-url $(TORCH_INDEX) torch==$(TORCH)
	@_build/lock/bin/python -m pip install -q --prefer-binary torch==$(TORCH) -e '.[book,dev]'
	@echo '# Exact pins of everything installed; remade from pyproject.toml by `make lock`.' > requirements.lock.new
	@_build/lock/bin/python -m pip freeze --all --exclude dfaccel --exclude pip --exclude wheel | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' >> requirements.lock.new
	@mv requirements.lock.new requirements.lock && rm -rf _build/lock

clean:  ## remove what was executed and built (.venv stays)
	@rm -rf _build .pytest_cache .ruff_cache
