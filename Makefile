# Two commands for a stranger: `make demo` and `make test`. Everything lives in .venv and demo/; nothing else is touched.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt

.PHONY: demo test fast lint docs bench clean

demo: $(VENV)/.installed  ## documents → tuned, tested, released model → an answer from the running server
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-dev lint  ## everything that must hold, fifteen to twenty minutes on two cores
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 --dist worksteal

fast: $(VENV)/.installed-dev  ## tests that need no starter model and no training
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(VENV)/.installed-dev  ## style, layers, types
	$(BIN)/ruff check src tests examples benchmarks docs
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-dev  ## write docs/reference.md and the editor schema from the specs
	$(BIN)/python docs/make_reference.py

bench: $(VENV)/.installed-dev  ## how to run each benchmark, and what the last run gave
	@cat benchmarks/README.md

clean:
	rm -rf $(VENV) demo

$(VENV)/.installed: pyproject.toml requirements/constraints.txt requirements/starter.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Luthier needs Python 3.11 or newer; found $$($(PYTHON) -V). Name one: make demo PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV) (about 1.5 GB with torch) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) '$(TORCH)'
	$(PIP) --no-deps -r requirements/starter.txt
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[all,dev]'
	@touch $@
