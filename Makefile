# The two commands are `make run` and `make test`. Both make .venv and install what they need, once.
# The rest keeps the lists of versions: `make constraints`, `make lowest`, `make sbom`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
# A file's tests share servers and models, so they stay in one process; the longest files come first.
# A third of their time tests wait for something, so there is one process more than cores.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count() + 1))")
PARALLEL ?= -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Kept beside other caches, so that each checkout does not install it anew.
LOWEST ?= $(HOME)/.cache/falcon-mamba-app/lowest-$(shell cat requirements.txt constraints-lowest.txt | sha256sum | cut -c1-12)

.PHONY: run test check kernels suite format clean constraints lowest sbom

run: $(VENV)/.installed
	$(BIN)/python app.py $(ARGS)

# mypy has one core for itself, while the kernels are compiled on the other and the first tests run.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j 2 check suite

suite: kernels
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# Once, and not by each of the processes that test them.
kernels: $(VENV)/.installed-dev
	@$(BIN)/python -c "from falcon_mamba_app.ops.cpu.warm_up import warm_up; warm_up()"

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The same bytes for everybody: pip install --require-hashes -r constraints.txt
constraints: $(TOOLS)/.installed
	$(TOOLS)/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make constraints" requirements.txt -o constraints.txt
	$(TOOLS)/bin/uv pip compile -q --resolution lowest-direct --python-version 3.11 --no-annotate \
		--custom-compile-command "make constraints" requirements.txt \
		| grep -vE '^(torch|triton|nvidia-|cuda-)' > constraints-lowest.txt

# Starts the app once with the lowest versions that the requirements allow. torch is left out of that:
# its oldest build for CUDA alone is several gigabytes. Its numba must not write over what the tests'
# has compiled.
lowest: $(LOWEST)/.installed
	NUMBA_CACHE_DIR=$(LOWEST)/numba $(LOWEST)/bin/python -m benchmarks.startup --repeats 1 --unbounded

$(LOWEST)/.installed:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --no-compile -r requirements.txt -c constraints-lowest.txt
	@touch $@

# What the app is made of, in CycloneDX's format; `pip-audit -r constraints.txt` asks for known faults.
sbom: $(TOOLS)/.installed
	$(TOOLS)/bin/cyclonedx-py requirements constraints.txt --output-reproducible -o sbom.cdx.json

$(TOOLS)/.installed: | $(BIN)/python
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet "uv>=0.9,<1" "cyclonedx-bom>=7,<8"
	@touch $@

clean:
	rm -rf $(VENV) $(TOOLS) sbom.cdx.json .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing what the app needs; the first time takes a minute or more"
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@echo "Installed. From now on the app starts in seconds"
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@
