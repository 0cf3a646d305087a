# A fresh machine needs git, make, Python 3.10 to 3.13 with its venv module and the network. Every
# target sets up .venv first. On Python 3.14 the originals want one of these besides.

VENV ?= .venv
PY := $(VENV)/bin/python
UV := $(PY) torchfgsm/originals/installer.py pip install

# The first that runs: a file called python3.11 may be a shim that only says it is not installed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

# One thread each: a second one helps little, and two processes would fight over the cores.
TEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

# Without TensorFlow, and without what builds, compiles or starts processes of its own.
QUICK := $(addprefix tests/,core models losses judging nsl cleverhans libraries translation \
	explanation graphs parity)

.PHONY: demo test test-quick test-slow test-installed test-lowest mutate lint types docs bench bench-speed \
	sanitize record setup sizes

demo: $(VENV)/.installed  ## compare the port with NSL and CleverHans themselves
	$(VENV)/bin/torchfgsm demo

test: $(VENV)/.installed
	$(TEST) -m 'not slow'

test-quick: $(VENV)/.installed  ## the attacks and what is said of them, while you work on them
	$(TEST) -m 'not slow and not live' $(QUICK)

test-slow: $(VENV)/.installed
	$(TEST) -m slow

test-installed: $(VENV)/.installed  ## the quick tests against the wheel, without the sources
	$(PY) tests/support/installed.py

test-lowest: $(VENV)-lowest/.installed  ## the same with the lowest versions
	$(PY) tests/support/installed.py --python $(VENV)-lowest/bin/python

mutate: $(VENV)/.installed  ## plant 300 faults and count those that the quick tests find
	OMP_NUM_THREADS=1 $(PY) tests/support/mutate.py

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.installed
	$(PY) -m mypy

docs: $(VENV)/.installed  ## the documentation as pages in build/site, which need no network
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: $(VENV)/.installed  ## measure the tables of the README and docs/training.md again
	$(PY) -m benchmarks.evidence.differences
	$(PY) -m benchmarks.evidence.parity
	$(PY) -m benchmarks.training.robust_training

bench-speed: $(VENV)/.installed  ## time the step, whole attacks and a training step
	$(PY) -m benchmarks.speed.peers build/wheels --python $$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	$(PY) -m benchmarks.speed.step --wheels build/wheels
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.speed.whole_attack --wheels build/wheels
	OMP_NUM_THREADS=2 $(PY) -m benchmarks.speed.whole_attack --wheels build/wheels
	$(PY) -m benchmarks.speed.attack_speed_page
	$(PY) -m benchmarks.speed.training_step --wheels build/wheels
	$(PY) -m benchmarks.speed.training_speed_page

sanitize: $(VENV)/.installed  ## look for races and bad accesses in the kernels, on a GPU
	$(PY) tests/support/sanitize.py

record: $(VENV)/.installed  ## record the originals' results that the wheel ships
	$(PY) -m benchmarks.evidence.record

setup: $(VENV)/.installed

sizes:
	@echo "Set-up, once: about 3 GB to fetch (torch with its CUDA libraries) for $(VENV), 6 GB on" \
	"disk, one to two minutes with a fast network. demo and test then make a TensorFlow" \
	"environment: 0.3 GB to fetch, 1.4 GB on disk, half a minute, in" \
	"$${TORCHFGSM_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/torchfgsm}"

# uv fills it, with pip's index where pip has one of its own. One command for all packages: torch
# and torchvision must be resolved together.
$(VENV)/.installed: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.10 or later with its venv module on PATH: install" \
	"one (on Debian and Ubuntu python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(MAKE) --no-print-directory sizes
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet uv
	$(UV) --python $(PY) -e '.[test]'
	@touch $@

# The checkout itself is taken out again: what is tested is the wheel.
$(VENV)-lowest/.installed: setup.cfg pyproject.toml tests/lowest.txt | $(VENV)/.installed
	@echo "Once: about 3.5 GB to fetch for $(VENV)-lowest, 6 GB on disk"
	$(PY) -m venv $(VENV)-lowest
	$(UV) --python $(VENV)-lowest/bin/python -e '.[test]' -c tests/lowest.txt
	$(VENV)/bin/uv pip uninstall --python $(VENV)-lowest/bin/python torchfgsm
	@touch $@
