# Two commands do everything: `make lab` and `make test`. Each works alone on a fresh clone.
# LAB_FLAGS and TEST_FLAGS are passed on: make lab LAB_FLAGS=--no-browser, make test TEST_FLAGS="-k encoding".
# MORE names an extra that is installed too: make test MORE=spark installs pyspark (half a gigabyte), as CI does.
.PHONY: lab test pictures setup clean

# An active conda or virtual environment is used as it is; else .venv is made. Its bin folder is on PATH below.
# The base environment of conda, which is active all the time, is not meant to be installed into.
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
VENV := $(or $(VIRTUAL_ENV),$(CONDA),$(CURDIR)/.venv)
PYTHON ?= python3
# uv looks for a fitting Python by itself, unless one was named.
CHOSEN := $(if $(filter-out file,$(origin PYTHON)),--python "$(PYTHON)")
FIRST := notebooks/01_live_stream.ipynb
# In a container one is root, which Jupyter accepts only with a flag.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
comma := ,
STAMP := $(subst $() ,\ ,$(VENV))/.logistream-installed$(MORE:%=-with-%)
TEST_STAMP := $(STAMP)-for-tests
export PATH := $(VENV)/bin:$(PATH)

lab: $(STAMP)
	@echo "Starting JupyterLab on $(FIRST). There, choose Run > Run All Cells. Ctrl-C here ends it."
	@jupyter lab --LabApp.default_url=/lab/tree/$(FIRST) $(AS_ROOT) $(LAB_FLAGS)

test: $(TEST_STAMP)
	python -m pytest $(TEST_FLAGS)

# The pictures in README.md, taken in a real browser; needs chromium and chromedriver.
pictures: $(TEST_STAMP)
	cd tests && python -m browser.pictures

setup: $(TEST_STAMP)

# pip is silent for a minute or more while it downloads and unpacks: every ten seconds a line says how far it is.
define install
	@if command -v uv >/dev/null; then \
	  echo "Installing Logistream and what it needs with uv, which takes seconds."; \
	  uv pip install --python "$(VENV)/bin/python" -e ".[$(EXTRAS)]"; \
	else \
	  echo "Installing Logistream and what it needs with pip: one to three minutes, the first time only."; \
	  "$(VENV)/bin/python" -m pip install -q --disable-pip-version-check -e ".[$(EXTRAS)]" & \
	  pip=$$!; seconds=0; trap 'kill $$pip; exit 130' INT TERM; \
	  while kill -0 $$pip 2>/dev/null; do \
	    sleep 1; seconds=$$((seconds + 1)); \
	    if [ $$((seconds % 10)) = 0 ]; then \
	      echo "  $$seconds s: $$(ls -d "$(VENV)"/lib/python*/site-packages/*.dist-info 2>/dev/null | wc -l) packages are in place"; \
	    fi; \
	  done; wait $$pip; \
	fi
	@touch "$@"
endef

# Installed again only when the requirements have changed.
$(STAMP): EXTRAS := lab,report$(MORE:%=$(comma)%)
$(TEST_STAMP): EXTRAS := lab,report,test$(MORE:%=$(comma)%)
$(STAMP) $(TEST_STAMP): pyproject.toml | $(STAMP)-python
	$(install)

# The environment, made unless it is there.
$(STAMP)-python:
	@if [ ! -x "$(VENV)/bin/python" ]; then \
	  echo "Making the virtual environment $(VENV)"; \
	  if command -v uv >/dev/null; then uv venv -q $(CHOSEN) "$(VENV)"; else \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	      echo "Python 3.11 or later is needed, this is $$($(PYTHON) -V 2>&1): try make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	    $(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	  fi; \
	fi
	@touch "$@"

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
