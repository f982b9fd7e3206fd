# `make quickstart` shows what the harness does; `make test` and `make lint` check it.
# Each makes its own virtual environment when it is not there; a second call is quick.

PYTHON ?= python3
VENV := .venv
VENV_T5 := .venv-transformers5
VENV_TEXTATTACK := .venv-textattack
PYTEST_WORKERS ?= 2
# Most of what is installed is never imported: what is, gets compiled when it is.
INSTALL := -m pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
SETTINGS := setup.cfg pyproject.toml constraints.txt

.PHONY: help quickstart test test-own try-textattack test-slurm mutants chaos fuzz docs lint \
	format test-transformers5 test-textattack clean

help:
	@echo "make quickstart          install, train a small model, attack it, print tables"
	@echo "make test                all tests, with the extra textattack if it installs"
	@echo "make test-slurm          the tests of docs/cluster.md, on a Slurm that it starts"
	@echo "make mutants             change the rule bit by bit; some test must notice"
	@echo "make chaos               kill runs 50 times; what they write must not differ"
	@echo "make fuzz                20,000 hostile inputs; each must end in a sentence"
	@echo "make docs                write docs/plugins from the code"
	@echo "make lint                format, lint, types, imports between modules"
	@echo "make format              format the code"
	@echo "make test-transformers5  a part of the tests, on transformers 5"
	@echo "make test-textattack     the tests of the extra textattack, with it"
	@echo "make clean               remove the environments and what tools left"

quickstart: $(VENV)/.installed
	$(VENV)/bin/harness run suites/quickstart.yaml --workers 2

test: test-own try-textattack

test-own: $(VENV)/.installed-test
	$(VENV)/bin/pytest -n $(PYTEST_WORKERS) --dist loadgroup

try-textattack: $(VENV)/.installed-test
	@if $(MAKE) -s $(VENV_TEXTATTACK)/.installed > $(VENV)/textattack.log 2>&1; \
	then $(MAKE) -s test-textattack; \
	else echo "left out: the tests of the extra textattack; it cannot be installed:" \
		"$$(grep -oE 'ERROR: .*|TimeoutExpired.*' $(VENV)/textattack.log | tail -n 1)"; fi

# Starts a Slurm on this machine, which it installs where it is not there.
test-slurm: $(VENV)/.installed-test
	SLURM_CONF=$$(.ci/slurm start) HARNESS_NEEDS_SLURM=1 \
		$(VENV)/bin/python -m pytest tests/cluster

mutants: $(VENV)/.installed-test
	$(VENV)/bin/python -m tests.mutants --jobs $(PYTEST_WORKERS)

chaos: $(VENV)/.installed-test
	$(VENV)/bin/python -m tests.chaos --kills 50 --stops 9 --full-disks 6

fuzz: $(VENV)/.installed-test
	$(VENV)/bin/python -m tests.fuzz --inputs 20000 --seed 11 --jobs $(PYTEST_WORKERS)

docs: $(VENV)/.installed-test
	$(VENV)/bin/python -m harness.cli.pages docs/plugins

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-test
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

test-transformers5: $(VENV_T5)/.installed
	$(VENV_T5)/bin/python -m pytest -m transformers5 -n $(PYTEST_WORKERS) --dist loadgroup \
		$$(grep -rl transformers5 tests --include='test_*.py')

test-textattack: $(VENV_TEXTATTACK)/.installed
	$(VENV_TEXTATTACK)/bin/python -m pytest tests/plugins/test_textattack.py

clean:
	rm -rf $(VENV) $(VENV_T5) $(VENV_TEXTATTACK) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# setup.cfg says which versions work; constraints.txt, which ones were tested.
$(VENV)/.installed: $(SETTINGS)
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "needs Python 3.10"'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(INSTALL) -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[test]'
	touch $@

# The other environments stand on $(VENV), whose harness is theirs as well: only what
# differs is installed in them.
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
define stand_on_venv
test -x $(@D)/bin/python || $(VENV)/bin/python -m venv $(@D)
echo "import site; site.addsitedir('$$($(VENV)/bin/python -c '$(SITE)')')" \
	> "$$($(@D)/bin/python -c '$(SITE)')/below.pth"
$(@D)/bin/python -Ic 'import harness'
endef

$(VENV_T5)/.installed: $(VENV)/.installed-test
	$(stand_on_venv)
	grep -vE '^(transformers|tokenizers|huggingface_hub|datasets|fsspec)==' \
		constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python $(INSTALL) -c $(@D)/constraints.txt \
		'harness[test]' 'transformers>=5,<6'
	touch $@

WITHIN_S := import subprocess, sys; \
	sys.exit(subprocess.run(sys.argv[2:], timeout=int(sys.argv[1])).returncode)
$(VENV_TEXTATTACK)/.installed: $(VENV)/.installed-test
	$(stand_on_venv)
	PIP_RETRIES=1 $(PYTHON) -c '$(WITHIN_S)' 300 $(@D)/bin/python $(INSTALL) \
		-c constraints.txt 'harness[textattack,test]'
	touch $@
