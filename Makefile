# Two commands do everything: `make lab` and `make test`. Each works alone on a fresh clone.
# LAB_FLAGS and TEST_FLAGS are passed on: make lab LAB_FLAGS=--no-browser, make test TEST_FLAGS="-k codec".
.PHONY: lab test setup clean

# An active conda or virtual environment is used as it is; else .venv is made. Its bin folder is on PATH below.
# The base environment of conda, which is active all the time, is not meant to be installed into.
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
VENV := $(or $(VIRTUAL_ENV),$(CONDA),$(CURDIR)/.venv)
PYTHON ?= python3
# uv looks for a fitting Python by itself, unless one was named.
CHOSEN := $(if $(filter-out file,$(origin PYTHON)),--python "$(PYTHON)")
FIRST := notebooks/01_live_stream.ipynb
# In a container one is root, and Jupyter wants to be told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
STAMP := $(subst $() ,\ ,$(VENV))/.logistream-installed
export PATH := $(VENV)/bin:$(PATH)

lab: $(STAMP)
	jupyter lab --LabApp.default_url=/lab/tree/$(FIRST) $(AS_ROOT) $(LAB_FLAGS)

test: $(STAMP)
	python -m pytest $(TEST_FLAGS)

setup: $(STAMP)

# Installed anew only when what is asked for has changed.
$(STAMP): pyproject.toml
	@if [ ! -x "$(VENV)/bin/python" ]; then \
	  echo "making the virtual environment $(VENV)"; \
	  if command -v uv >/dev/null; then uv venv -q $(CHOSEN) "$(VENV)"; else \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	      echo "Python 3.11 or later is needed, this is $$($(PYTHON) -V 2>&1): try make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	    $(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	  fi; \
	fi
	@if command -v uv >/dev/null; then \
	  echo "installing with uv"; uv pip install -q --python "$(VENV)/bin/python" -e ".[lab,report,test]"; \
	else \
	  echo "installing with pip, which takes a minute or two"; \
	  "$(VENV)/bin/python" -m pip install -q --disable-pip-version-check -e ".[lab,report,test]"; \
	fi
	@touch "$(VENV)/.logistream-installed"

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
