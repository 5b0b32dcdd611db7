# Two commands do everything: `make lab` and `make test`. Each works alone on a fresh clone.
.PHONY: lab test setup clean

# An active conda or virtual environment is used as it is; else .venv is made. Its bin folder is on PATH below.
VENV := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),$(if $(CONDA_PREFIX),$(CONDA_PREFIX),$(CURDIR)/.venv))
PYTHON ?= python3
# In a container one is root, and Jupyter wants to be told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
STAMP := $(VENV)/.logistream-installed
export PATH := $(VENV)/bin:$(PATH)

lab: $(STAMP)
	jupyter lab $(AS_ROOT) $(LAB_FLAGS) notebooks/01_live_stream.ipynb

test: $(STAMP)
	python -m pytest

setup: $(STAMP)

# Installed anew only when what is asked for has changed.
$(STAMP): pyproject.toml
	@if [ ! -x "$(VENV)/bin/python" ]; then \
	  echo "making the virtual environment $(VENV)"; \
	  if command -v uv >/dev/null; then uv venv -q "$(VENV)"; else $(PYTHON) -m venv "$(VENV)"; fi; \
	fi
	@if command -v uv >/dev/null; then \
	  echo "installing with uv"; uv pip install -q --python "$(VENV)/bin/python" -e ".[lab,report,test]"; \
	else \
	  echo "installing with pip, which takes a minute or two"; \
	  "$(VENV)/bin/python" -m pip install -q -e ".[lab,report,test]"; \
	fi
	@touch "$(STAMP)"

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
