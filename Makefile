# make demo   the whole way once, in minutes
# make test   the fast tests; make check, make slow: the rest of what CI runs
# make slurm  the executor on a real Slurm of one node; make ray: on a real Ray; each says why where it cannot
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check slow slurm ray format clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/isoflop demo

test: $(VENV)/.installed
	$(BIN)/pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/test_house.py

slow: $(VENV)/.installed
	$(BIN)/pytest -m slow

slurm: $(VENV)/.installed
	tests/slurm/cluster.sh $(BIN)/pytest -m slow -n 0 -k slurm tests/test_launch.py tests/test_slurm.py

ray: .venv-ray/.installed
	.venv-ray/bin/pytest -m slow -n 0 -k ray tests/test_launch.py tests/test_ray.py

.venv-ray/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	touch $@

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-ray .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
