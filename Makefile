# The two commands of the README are `make run` and `make test`; everything else stands below `make help`.

PYTHON ?= python3
BIN := .venv/bin
AS_ROOT := $(filter 0,$(shell id -u))
C_SOURCES := $(wildcard pyhv/hv/*/*.[ch] pyhv/hv/*/*.py pyhv/hv/sim/silicon/*.[ch] pyhv/net/*.[ch] pyhv/fs/*.[ch] pyhv/linux/init/*.[ch])
BUILDERS := $(wildcard pyhv/hv/*/build_*.py pyhv/net/build_*.py pyhv/fs/build_*.py pyhv/linux/build_*.py)
RIG := $(BIN)/python scripts/rig.py --timeout 1500

help:
	@echo "make run         boot the hello guest and show its verdict"
	@echo "make test        every test tier that this machine can run"
	@echo "make check       ruff and mypy"
	@echo "make venv        .venv with pyhv and the tools of its developers"
	@echo "make guests      the tiny kernels in guests/"
	@echo "make kernels     Debian's kernels and firmware, by apt, into build/kernels"
	@echo "make test-sanitized  the simulator under the address and undefined-behaviour sanitizers"
	@echo "make test-amdv   the tests on a real kvm_amd with nested paging, inside QEMU TCG"
	@echo "make bench       speed, as ratios to peers measured in the same run"
	@echo "make deps        the system packages that all of this needs, by apt"
	@echo "make clean       remove what was built"

deps:
	@scripts/deps.sh all

# As root the build's packages are installed; else what is missing is named, with the line that mends it.
deps-build:
	@scripts/deps.sh build

# What the optional tiers need: installed as root, otherwise named, and the tier is left out.
deps-tiers:
ifeq ($(AS_ROOT),0)
	@scripts/deps.sh all
else
	@scripts/deps.sh --check all || echo "optional tiers are left out; 'make deps' as root installs what they need"
endif

.venv/.installed: pyproject.toml setup.py $(BUILDERS) $(C_SOURCES) | deps-build
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/pip uninstall --quiet --yes setuptools 2>/dev/null || true  # its .pth file slows every start of Python
	@touch $@

# Byte code, and the bundle of it that the command starts from, for when Python is told to write none (the environment may).
venv: .venv/.installed
	@$(BIN)/python -m compileall -q pyhv
	@$(BIN)/python -m pyhv.startup

guests: | deps-build
	@$(MAKE) --no-print-directory -s -C guests

run: venv guests
	@$(BIN)/pyhv run guests/build/hello.elf

kernels: deps venv
	@$(BIN)/python scripts/fetch_kernels.py

# The kernels tier is there when apt can fetch it; the tests say what is missing otherwise.
test: deps-tiers venv guests
	@$(MAKE) --no-print-directory kernels || echo "kernels could not be fetched: their tests are skipped"
	@$(BIN)/pytest

test-amdv: kernels guests
	@$(BIN)/pytest tests/amdv

test-sanitized: venv guests
	@$(BIN)/pytest tests/sim/test_sanitized.py

check: venv
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: deps venv guests
	@$(BIN)/pip install --quiet --disable-pip-version-check 'unicorn>=2' || echo "Unicorn is left out: pip cannot install it"
	@$(BIN)/python scripts/bench.py

clean:
	@$(MAKE) --no-print-directory -s -C guests clean
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find pyhv -name '*.so' -delete
	@rm -f .venv/.installed pyhv/hv/kvm/_kvm.c pyhv/hv/sim/_silicon.c pyhv/linux/init.elf

.PHONY: help deps deps-build deps-tiers venv guests run kernels test test-amdv test-sanitized check bench clean
