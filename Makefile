# On a fresh machine: `make demo` shows the product, `make test` proves it. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
STAMP := $(VENV)/.installed-by-make
SOURCE ?= synthetic
OUT ?= out/demo
LIMIT ?=
BENCH ?= out/bench
COMPARE ?=
UPGRADE ?=
TESTED := torch,light,ros,training,export,test
EXTRAS := $(TESTED),fleet,lint

.PHONY: setup demo test test-lowest lint format bench regression weights constraints clean

setup: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@echo "Installing into $(VENV) (a few minutes the first time: PyTorch is large)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup
	$(BIN)/python -m sfi_ros.ros.demo $(SOURCE) --output $(OUT) $(if $(LIMIT),--limit $(LIMIT))

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A short set, a few minutes on two idle cores; COMPARE is the BENCH of another run. docs/performance.md has the long one.
report = --json $(BENCH)/$(1).json $(if $(COMPARE),--compare $(COMPARE)/$(1).json)

bench: setup
	$(BIN)/python benchmarks/flops.py --floor $(call report,flops)
	$(BIN)/python benchmarks/mpi.py $(call report,mpi)
	$(BIN)/python benchmarks/engine.py $(call report,engine)
	$(BIN)/python benchmarks/engine.py --networks fast-mobilenetv2 --cameras 1,2,4 --seconds 2 $(call report,cameras)
	$(BIN)/python benchmarks/layout.py $(call report,layout)
	$(BIN)/python benchmarks/training.py $(call report,training)

# Ratios over the released network beside those kept for this kind of processor: a report, never a failure.
regression: setup
	-timeout 60 $(BIN)/python benchmarks/regression.py

# The weights that ship, for vehicles without PyTorch, and the hashes of all of them; to be made again, and committed,
# whenever a checkpoint changes.
weights: setup
	set -e; for file in sfi_ros/weights/*.safetensors; do \
		$(BIN)/python -m sfi_ros.cli export $$file -o $${file%.safetensors}.onnx --stored float16; done
	cd sfi_ros/weights && sha256sum *.onnx *.safetensors > SHA256SUMS

# Pins what a changed pyproject.toml asks for and leaves other pins alone; UPGRADE=1 takes the newest of everything.
UV := build/uv/bin/uv
compile = UV_CUSTOM_COMPILE_COMMAND='make constraints' $(UV) pip compile --quiet --no-annotate pyproject.toml

constraints: | $(UV)
	$(compile) --all-extras --universal --python-version 3.10 $(if $(UPGRADE),--upgrade) -o constraints.txt
	rm -f constraints-lowest.txt
	$(compile) --extra $(TESTED) --resolution lowest-direct --python-version 3.10 \
		--python-platform x86_64-manylinux_2_28 -o constraints-lowest.txt

# The tests with the lowest versions that pyproject.toml allows, in an environment of its own.
test-lowest:
	$(MAKE) test VENV=build/lowest CONSTRAINTS=constraints-lowest.txt EXTRAS=$(TESTED) PYTHON=python3.10

$(UV):
	$(PYTHON) -m pip install -qq --target build/uv uv

clean:
	rm -rf $(VENV) build install log out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
