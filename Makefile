# Everything runs from a clean clone with Python 3.11+ and a package index: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/seal/v1/*.proto)
PACKAGES := seal generator_svc trainer_svc evaluator_svc controller_svc

.DEFAULT_GOAL := help
.PHONY: help demo demo-quick bench test lint format proto schema constraints clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Train a self-edit policy on a real small model (15-30 min on 2 cores) and write the report
	$(BIN)/seal demo

demo-quick: $(VENV)/.demo ## The same in about 5 minutes, with fewer contexts and one round
	$(BIN)/seal demo --quick

bench: $(VENV)/.dev ## Measure the engine against its opponents (20 min on 2 cores): make bench EDITS=rank_iter0.json ARGS='--only P1'
	$(BIN)/python -m benchmarks.run $(if $(EDITS),--edits $(EDITS)) $(if $(SQUAD),--squad $(SQUAD)) $(ARGS)

test: $(VENV)/.dev lint ## Set up, lint, and run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code and sort the imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

proto: $(VENV)/.dev ## Generate seal/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)

schema: $(VENV)/.dev ## Write docs/restemrun.schema.json, by which editors check manifests
	$(BIN)/python -m seal.schema > docs/restemrun.schema.json

constraints: $(VENV)/.dev ## Write constraints.txt from what is installed
	{ echo "# Exact versions of everything that the two commands install; made with \`make constraints\`."; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
