# make demo   the whole way once, in minutes
# make study  the kept study of docs/results: about an hour and a half on two cores, on the C sources of Linux from Debian
# make test   the fast tests; make check, make slow: the rest of what CI runs
# make tutorial  the tutorial; make docs: the documents, with every command of the README and the tutorial
# make slurm  the executor on a real Slurm of one node; make ray: on a real Ray; each says why where it cannot
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

KERNEL := block crypto fs ipc kernel lib mm net security sound virt

.PHONY: demo study tutorial docs test check slow slurm ray format clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/isoflop demo

study: $(VENV)/.installed linux-6.1
	$(BIN)/isoflop study run studies/kernel.toml --ladder
	$(BIN)/isoflop study export kernel --out docs/results/kernel/kernel
	$(BIN)/isoflop render kernel
	cp kernel/figures/*.png docs/results/kernel/

linux-6.1:
	rm -rf $@.part && mkdir $@.part $@.part/texts
	cd $@.part && apt-get download linux-source-6.1 && dpkg-deb -x linux-source-6.1_*.deb .
	tar -xJf $@.part/usr/src/linux-source-6.1.tar.xz -C $@.part/texts --strip-components=1 --wildcards $(KERNEL:%='linux-source-6.1/%/*.c')
	mv $@.part/texts $@ && rm -rf $@.part

tutorial: $(VENV)/.installed
	$(BIN)/python examples/tutorial.py

docs: $(VENV)/.installed
	$(BIN)/pytest -m 'slow or not slow' tests/test_documents.py tests/test_readme_commands.py

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
	rm -rf $(VENV) .venv-ray linux-6.1.part .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
