# make train   train the digits model, from nothing but Python 3.11 or later
# make test    lint, types and all tests
# make bench   side by side with PyTorch, JAX and scikit-learn
# make wheels  collect what benchmarks/gpu_session.sh installs on a machine without a network
# make clean   remove the virtual environment and everything that was built

PYTHON ?= python3
VENV   ?= .venv
WHEELS ?= wheels
TORCH  ?= torch==2.13.0

# Installing compiles kernels ahead for this machine, about a minute on two cores. Whoever trains or
# tests right away compiles those that are needed, which is quicker: no targets here.
export FASTNN_BUILD_TARGETS ?=

bin := $(VENV)/bin
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test bench torch peers wheels clean

train: $(VENV)/.train
	$(bin)/fastnn train digits

test: $(VENV)/.test
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/python -m pytest -n auto --maxprocesses 8 --no-loadscope-reorder

bench: peers
	$(bin)/python -m benchmarks.run
	$(bin)/python -m pytest benchmarks --benchmark-only

# what the tests marked "peers" compare with
torch: $(VENV)/.torch

# what the benchmarks compare with
peers: $(VENV)/.peers

# everything for a session on a GPU, for this Python and this kind of machine
wheels: $(VENV)/.created
	$(pip) "pip>=24"
	$(bin)/python -m pip wheel --wheel-dir $(WHEELS) "setuptools>=77" wheel ".[cuda13,test]" "$(TORCH)"
	-$(bin)/python -m pip wheel --wheel-dir $(WHEELS) nvidia-cuda-sanitizer-api
	rm -f $(WHEELS)/fastnn_numba-*.whl

# Stamps: a second call installs nothing, until pyproject.toml changes.
$(VENV)/.train: $(VENV)/.created pyproject.toml
	@echo "installing fastnn into $(VENV)"
	$(pip) --editable ".[plot,sklearn]"
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml
	@echo "installing fastnn and the tools of its tests into $(VENV)"
	$(pip) --editable ".[test,plot,sklearn]"
	@touch $(VENV)/.train $@

$(VENV)/.torch: $(VENV)/.test
	@echo "installing $(TORCH) into $(VENV)"
	$(pip) "$(TORCH)"
	@touch $@

$(VENV)/.peers: $(VENV)/.created pyproject.toml
	@echo "installing fastnn and the libraries it is compared with into $(VENV)"
	$(pip) --editable ".[test,plot,sklearn,peers]" "$(TORCH)"
	@touch $(VENV)/.train $(VENV)/.test $(VENV)/.torch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "fastnn needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Point make at a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "could not create $(VENV): is Python's venv module installed" \
	    "(on Debian and Ubuntu: apt install python3-venv)?" >&2; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
