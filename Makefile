# Two commands on a fresh Linux machine with Python 3.11 or newer:
#   make demo    the real Gemma 3 270M, from GGUF to LitGPT to generated text
#   make test    all checks
# And: make cluster (buckets and Ray at length), make fuzz (plans made up at random, and damaged files), make mutants
# (wrong ports), make faults (one fault at a time, thousands of times), make hostile (files made to harm), make finetune
# (the real model through LitGPT's finetuning), make docs (the pages as a site), make drift (the newest of each peer).
# Both share one virtual environment, .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2

.PHONY: faults cluster mutants families demo test lint check docs finetune fuzz fuzz-plans fuzz-bytes hostile drift clean

demo: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh demo

test: $(VENV)/.tested lint check

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin

check: $(VENV)/.tested
	$(BIN)/python -m pytest -n $(JOBS)

# The pages as a site, in site/; a warning is an error. The list of commands is made anew first.
docs: $(VENV)/.tested
	$(PIP) install -q -c constraints.txt --group docs
	$(BIN)/python docs/commands.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

# The real 270M through LitGPT's own finetuning, and back: about five minutes.
finetune: $(VENV)/.tested
	$(BIN)/python -m pytest -n 0 -s tests/real/finetuned.py

# Both kinds of made-up input; each can be run alone.
fuzz: fuzz-plans fuzz-bytes

# Made-up families, in tens of thousands, through every way of running a plan.
PLANS ?= 20000

fuzz-plans: $(VENV)/.tested
	$(BIN)/python tests/generated/fuzz.py $(PLANS)

# Damaged files through every parser, held against the formats' own readers: SECONDS of each by mutation, and by
# atheris, which follows the branches and is installed for this alone. It starts from what is in tests/hostile/corpus;
# what is found since is kept in .fuzz.
SECONDS ?= 60

fuzz-bytes: $(VENV)/.tested
	$(PIP) install -q -c constraints.txt --group fuzz
	$(BIN)/python tests/hostile/fuzz.py $(SECONDS)
	$(BIN)/python tests/hostile/fuzz.py $(SECONDS) --engine atheris

# Files made to harm, through porter and the peers' readers; writes a section of docs/reliability.md.
hostile: $(VENV)/.tested
	$(BIN)/python tests/hostile/run.py --docs

# Buckets and Ray at length: two nodes, one of them killed; faults of a store; memory; the example.
cluster: $(VENV)/.tested
	$(BIN)/python -m pytest -m cluster tests/cluster

# A run with thousands of faults, one at a time; writes the table of docs/reliability.md.
faults: $(VENV)/.tested
	$(BIN)/python tests/faults/faults.py

# Every model that LitGPT names, to Hugging Face and back; writes docs/models.md. And every mistake that a family's
# tables could have and still fit, which the logits must show.
families: $(VENV)/.tested
	$(BIN)/python tests/peers/named_models.py
	$(BIN)/python tests/peers/mutants.py

# Wrong ports of every kind, each of which `porter verify` has to find and name; writes the table in docs/verify.md.
mutants: $(VENV)/.tested
	$(BIN)/python tests/verification/port_mutants.py --write
	$(BIN)/python tests/verification/real_mutants.py --write

# The peers' own suite on the newest of each peer, in an environment of its own; torch stays as it is pinned.
DRIFT := .venv-drift
DRIFT_PEERS := torch|transformers|litgpt|lightning|keras|keras-hub|orbax-checkpoint|gguf|h5py|safetensors
DRIFT_PIP := $(DRIFT)/bin/python -m pip --disable-pip-version-check

drift:
	test -x $(DRIFT)/bin/python || $(PYTHON) -m venv $(DRIFT)
	$(DRIFT_PIP) install -q --upgrade pip
	grep '^torch==' constraints.txt > $(DRIFT)/torch.txt
	$(DRIFT_PIP) install -q -c $(DRIFT)/torch.txt torch
	$(DRIFT_PIP) install -q --upgrade -c $(DRIFT)/torch.txt -e ".[demo]" --group dev --group peers
	$(DRIFT_PIP) install -q --upgrade -c $(DRIFT)/torch.txt --no-deps litgpt keras-hub
	@result=0; $(DRIFT)/bin/python -m pytest -n $(JOBS) -m peer -rfEs --disable-warnings || result=$$?; \
	echo "drift: the peers' suite $$(test $$result -eq 0 && echo passed || echo failed) on"; \
	$(DRIFT_PIP) list | grep -iE '^($(DRIFT_PEERS)) '; exit $$result

# torch first and alone, so that no other requirement chooses its build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade pip
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e ".[demo]"
	touch $@

# litgpt asks for an older huggingface_hub than transformers 5, and keras-hub for TensorFlow, which Keras on torch
# does not need: they are installed without their requirements.
$(VENV)/.tested: $(VENV)/.installed
	$(PIP) install -q -c constraints.txt --group dev --group peers
	$(PIP) install -q -c constraints.txt --no-deps litgpt keras-hub
	touch $@

clean:
	rm -rf $(VENV) $(DRIFT) demo .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
