# Everything a fresh machine with Python and make needs. `make sweep` and `make test` set up what is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: sweep test quick check format install lock clean help

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

sweep: install   ## run twenty trials on real data, and list the best
	$(BIN)/lightsweep sweep

test: install    ## run every test that this machine can run, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

quick: install   ## run the tests for the time between two edits: no processes, no stores, no whole runs
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not cold and not ddp and not browser and not postgres" \
		tests/test_architecture.py tests/lightning_modules/nets \
		$(addprefix tests/sweeps/,config core driver report reproduce search serving) \
		--ignore=tests/sweeps/search/space --ignore=tests/sweeps/search/test_migrating.py \
		--ignore=tests/sweeps/search/test_shipped_options.py

check: install   ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)  ## set up the virtual environment

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Lightsweep needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

lock: install    ## write the versions that are installed now into constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable --exclude lightsweep | sed 's/+cpu$$//' | sort -f; } > .constraints.new
	@mv .constraints.new constraints.txt

clean:           ## remove what was installed and built; the store in mlruns/ stays
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
