# make demo    install, and run the main job on the bundled task and model, offline
# make test    install, and run the tests
# make check   format, lint, types, architecture: clean before each commit
# make test-slurm  jobs on a real Slurm cluster of one node, the bundled task among them
# make nano    train the bundled models from scratch (hours)
#
# EXTRA_INDEX=URL adds a package index, for PyTorch's own CPU or CUDA builds.
# TESTS_AT_ONCE=1 where memory is short: a file of tests takes up to 3 GB.
# CONSTRAINTS= (empty) lifts the pin of torch.

PYTHON ?= python3.11
CONSTRAINTS ?= constraints.txt
EXTRA_INDEX ?=
TESTS_AT_ONCE ?= 4
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) $(if $(EXTRA_INDEX),--extra-index-url $(EXTRA_INDEX))

.PHONY: demo test test-slurm check format nano tasks clean

demo: $(VENV)/installed
	$(BIN)/tunelm compare

test: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --maxprocesses $(TESTS_AT_ONCE) --dist loadfile

test-slurm: $(VENV)/installed
	$(BIN)/python -m pytest tests/test_cluster.py tests/test_cluster_study.py tests/test_cluster_faults.py
	$(BIN)/python -m tests.bundled_on_slurm

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_architecture.py

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[all,dev]'
	touch $@

tasks: $(VENV)/installed
	$(BIN)/python nano/build_tasks.py
	$(BIN)/python tasks/build.py

nano: tasks
	$(BIN)/python nano/train.py --size nano --out build/nano --compile
	$(BIN)/python nano/train.py --size nano-small --out build/nano-small --compile
	$(BIN)/python nano/install.py build

clean:
	rm -rf build dist .pytest_cache .ruff_cache
