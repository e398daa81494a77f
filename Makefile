# The pipeline: .venv -> executed notebooks -> site -> checks. `make help` lists what can be asked for.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book check test lint executed-book executed-quick executed-paper lab pdf links models benchmarks readme-figure lock clean

# What may be given on the command line, as in `make book JOBS=4`:
PYTHON ?= python3# the Python (3.11 or newer) that makes .venv
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu# where PyTorch comes from; for CUDA .../whl/cu130
JOBS ?= 2# notebooks executed side by side
THREADS ?= 1# threads each of them may use
TORCH ?= $(shell sed -n 's/^torch==//p' requirements.lock)# PyTorch's version

BIN := .venv/bin
READY := .venv/.ready
PACKAGE := $(shell find dfaccel -name '*.py' -o -name '*.mplstyle')
PAGES := _config.yml _toc.yml genindex.md notebooks/expected.yml $(wildcard notebooks/results/*.csv) $(shell find book -type f -not -path '*/__pycache__/*')
CHAPTERS := $(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/[0-9]*.ipynb)))
LONG := $(foreach number,04 09 05 13 07 06 03 08,$(filter $(number)_%,$(CHAPTERS)))# the longest first, or the last runs alone
STEMS := $(LONG) $(filter-out $(LONG),$(CHAPTERS))

# Inherited by every notebook, test and build. Two notebooks run at once, so each keeps to its own core.
export OMP_NUM_THREADS := $(THREADS)
export MKL_NUM_THREADS := $(THREADS)
export OPENBLAS_NUM_THREADS := $(THREADS)
export TQDM_DISABLE := 1
export PYTHONDONTWRITEBYTECODE :=
CHECK = $(BIN)/python book/check.py
PARALLEL = $(MAKE) --no-print-directory --keep-going -j$(JOBS)

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  \1@\2/' | column -t -s@ 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*## ' Makefile
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

# The models and tables that each of them read when it ran last.
-include $(wildcard _build/executed/*/*.d)

# Results of notebooks that are no longer there would stay in the tables of the site.
prune = rm -f $(filter-out $(foreach stem,$(STEMS),_build/executed/$(1)/$(stem).ipynb _build/executed/$(1)/$(stem).d),$(wildcard _build/executed/$(1)/*.*))

# A site appears at its place only when it is complete and without a warning.
_build/html/index.html: $(STEMS:%=_build/executed/book/%.ipynb) $(PAGES)
	@$(call site,book)
_build/site-quick/index.html: $(STEMS:%=_build/executed/quick/%.ipynb) $(PAGES)
	@$(call site,quick)
define site
rm -rf $(@D).work && mkdir -p $(@D).work
@BOOK_PROFILE=$(1) $(BIN)/jupyter-book build . --path-output $(@D).work -W -n --keep-going -q >$(@D).work/log 2>&1 \
	|| { cat $(@D).work/log; echo "the site has warnings or errors: see above"; exit 1; }
@rm -rf $(@D) && mv $(@D).work/_build/html $(@D) && rm -rf $(@D).work && echo "$@"
endef

book: $(READY)  ## execute the notebooks as published and build the site: _build/html/index.html
	@$(call prune,book)
	@$(PARALLEL) _build/html/index.html
	@$(CHECK) _build/executed/book notebooks/expected.yml --profile book

lint: $(READY)  ## lint everything, and see that the package is imported one way
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@layers=$$($(BIN)/lint-imports --no-cache) || { echo "$$layers"; exit 1; }

check: lint  ## lint and the quick tests, for while you work: no notebook is run, no browser started
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow and not site and not browser"

test: lint  ## lint, run every notebook (quick), check its records, build the site strictly, run the tests
	@$(call prune,quick)
	@$(PARALLEL) _build/site-quick/index.html
	@$(CHECK) _build/executed/quick notebooks/expected.yml --profile quick
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lab: $(READY)  ## open JupyterLab on the notebooks
	@env -u TQDM_DISABLE -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS $(BIN)/jupyter lab --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/notebooks/01_stars_and_gravity.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

pdf: book  ## print the book into one file: _build/dfaccel.pdf (needs Chromium)
	@$(BIN)/python book/pdf.py _build/html _build/dfaccel.pdf

links: $(STEMS:%=_build/executed/book/%.ipynb) $(READY)  ## try every address the book cites (needs the network)
	@rm -rf _build/links
	@BOOK_PROFILE=book $(BIN)/jupyter-book build . --builder linkcheck --path-output _build/links -qq

models: $(READY)  ## train the shipped models again (minutes each)
	@for model in $$(PYTHONPATH=models $(BIN)/python -c 'import train; print(*train.RECIPES)'); do $(BIN)/python models/train.py $$model || exit 1; done

benchmarks:  ## list the side-by-side measurements and what each answers
	@for script in $(filter-out benchmarks/table.py benchmarks/hernquistflows.py,$(wildcard benchmarks/*.py)); do echo "$(BIN)/python $$script"; sed -n '1s/^"""/    /p' $$script; done

readme-figure: _build/executed/book/05_recovering_accelerations.ipynb  ## copy the README's figure out of the executed chapter 5
	@$(BIN)/python -c "$$README_FIGURE" $< book/_static/readme_figure.png
define README_FIGURE
import base64, json, pathlib, sys
cells = json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"]
outputs = [out for cell in cells if "readme-figure" in cell["metadata"].get("tags", ()) for out in cell["outputs"]]
(image,) = [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]
pathlib.Path(sys.argv[2]).write_bytes(base64.b64decode(image))
endef
export README_FIGURE

lock:  ## make requirements.lock again from pyproject.toml, in a fresh environment (TORCH=... for another PyTorch)
	@rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	@_build/lock/bin/python -m pip install -q --no-deps --retries 0 --extra-index-url $(TORCH_INDEX) torch==$(TORCH)
	@_build/lock/bin/python -m pip install -q --prefer-binary torch==$(TORCH) -e '.[book,dev]'
	@echo '# Exact pins of everything installed; remade from pyproject.toml by `make lock`.' > requirements.lock.new
	@_build/lock/bin/python -m pip freeze --all --exclude dfaccel --exclude pip --exclude wheel | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' >> requirements.lock.new
	@mv requirements.lock.new requirements.lock && rm -rf _build/lock

clean:  ## remove what was executed and built (.venv stays)
	@rm -rf _build .pytest_cache .ruff_cache
