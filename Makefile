# The one list of verbs: people, hooks and CI use the same words. `make` alone prints them.
PYTHON := .venv/bin/python
READY := .venv/.ready
UV = $(or $(shell command -v uv),build/uv/bin/uv)# the second one is what setup installs
RUN ?= build/demo
CLUSTER_TESTS ?= tests/cluster
SHOPPER ?=
# A worker a core (one more makes all of them slower); a file's tests share what is costly to start, in the order of tests/conftest.py.
FAST := not slow and not whole and not cluster
SHARED := -n auto --dist loadfile --no-loadscope-reorder
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PYTHONHASHSEED ?= 0
unexport PYTHONDONTWRITEBYTECODE # every process would compile all of our modules anew

.DEFAULT_GOAL := help
.PHONY: help setup format check test test-fast test-whole compile demo serve serve-docker decide replay lift review load faults images manifests deploy-local undeploy-local test-cluster alibi bench drift-bench science clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): uv.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh
	@touch $@

setup: ## install everything: uv, locked packages, Java, Spark's jars, Redis
	@scripts/setup.sh
	@touch $(READY)

format: $(READY) ## rewrite the code in the house format
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

check: $(READY) ## lock, format, lint, types, import directions and compiled pipelines: nothing is rewritten
	@$(UV) lock --check
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PYTHON) -m pipelines.run compile --check

test: $(READY) ## every test but those of whole pipelines, fast ones first (needs no network after setup)
	@$(PYTHON) -m pytest -m "$(FAST)" -q $(SHARED)
	@$(PYTHON) -m pytest -m "slow and not whole" -q $(SHARED)

test-fast: $(READY) ## only the tests that take seconds
	@$(PYTHON) -m pytest -m "$(FAST)" -q $(SHARED)

test-whole: $(READY) ## whole pipelines from raw events to a report, `make demo` among them (a quarter of an hour)
	@$(PYTHON) -m pytest -m whole -q $(SHARED)

compile: $(READY) ## rewrite pipelines/compiled/*.yaml
	@$(PYTHON) -m pipelines.run compile

demo: $(READY) ## real shopping histories -> model -> verdict -> served graph -> 200 decisions (build/demo)
	@$(PYTHON) -m pipelines.demo --out $(RUN)

serve: $(READY) ## start engine, graph and the four nodes for the champion of RUN (default build/demo)
	@$(PYTHON) -m serving.kserve serve --run $(RUN)

serve-docker: $(READY) ## the same in one container (compose.yaml; needs Docker with its plugin Compose)
	@docker compose version >/dev/null 2>&1 || { echo "serve-docker needs Docker with its plugin Compose; make serve needs neither." >&2; exit 4; }
	@$(PYTHON) -m pipelines.build_images online
	@RUN=$(abspath $(RUN)) OWNER=$$(id -u):$$(id -g) ONLINE=$$($(PYTHON) -m deployment images | grep /online) docker compose up

decide: $(READY) ## ask the served engine for one shopper: make decide SHOPPER=1823
	@$(PYTHON) -m serving.kserve decide --run $(RUN) $(if $(SHOPPER),--shopper $(SHOPPER))

replay: $(READY) ## make every logged decision of RUN again with the recorded versions and compare bit for bit
	@$(PYTHON) -m serving.kserve replay --run $(RUN)

lift: $(READY) ## what the promos of RUN brought, by holdout and randomised traffic (lake/gold/lift; shown by make review)
	@$(PYTHON) -m spark_jobs measure_lift --lake $(RUN)/lake

review: $(READY) ## the reviewer's page for RUN, promotions started from it (token: python -m serving.review add --run build/demo --name YOU --roles reviewer)
	@$(PYTHON) -m serving.review serve --run $(RUN) --promote

load: $(READY) ## load and chaos on the service of RUN, held to loadtests/service_level.yaml (build/load); TARGET=cluster: on what is deployed
	@$(PYTHON) $(if $(filter cluster,$(TARGET)),-m deployment load --run $(RUN),-m loadtests.run --run $(RUN) --out build/load)

faults: $(READY) ## a million reservations while clients and Redis are killed: nothing overspent, nothing lost (build/faults)
	@$(PYTHON) -m loadtests.faults --out build/faults

images: $(READY) ## build the image of every dependency group that changed (needs Docker): sizes, bills of materials (build/images)
	@$(PYTHON) -m pipelines.build_images

manifests: $(READY) ## render both overlays, hold them to strict schemas and to our policies (build/manifests)
	@$(PYTHON) -m deployment render
	@$(PYTHON) -m deployment page --check

deploy-local: $(READY) ## serve RUN on the current kube context, after asking (YES=1 does not ask)
	@$(PYTHON) -m deployment deploy --run $(RUN)

undeploy-local: $(READY) ## take it off the cluster again
	@$(PYTHON) -m deployment undeploy

test-cluster: $(READY) ## tests of what deploy-local left on the current kube context, and of Spark's pods there
	@$(PYTHON) -m pytest -m cluster -v --maxfail=3 $(CLUSTER_TESTS) $(ARGS)

alibi: $(READY) ## alibi-detect and the detector in an environment of their own (build/alibi): its tests can be chosen there
	@UV_PROJECT_ENVIRONMENT=build/alibi $(UV) sync --frozen --quiet --compile-bytecode --no-default-groups --group drift

drift-bench: $(READY) ## drift: false alarms of 1,000 real months, days until planted changes are found, the detector's speed (build/drift, docs/drift.md)
	@$(PYTHON) -m benchmarks.drift --run $(RUN) --out build/drift/result.json --document docs/drift.md
	@$(PYTHON) -m benchmarks.traffic --run $(RUN) --out build/drift/traffic.json --document docs/drift.md
	@$(PYTHON) -m benchmarks.detector --run $(RUN) --out build/drift/detector.json --document docs/drift.md

bench: $(READY) ## measure: data set build against DuckDB, metrics against other packages, the gate (build/bench.json)
	@$(PYTHON) -m benchmarks.run --out build/bench.json

science: $(READY) ## reproduce the tables of docs/science.md: Hillstrom, IHDP (IHDP=FILE), coverage, the gate's operating curve (build/science)
	@$(PYTHON) -m science --out build/science $(if $(HILLSTROM),--hillstrom $(HILLSTROM)) $(if $(IHDP),--ihdp $(IHDP))

clean: ## delete what runs left behind (not the installed packages)
	if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name uv -exec rm -rf {} +; fi
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
