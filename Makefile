# `make demo` and `make test` install everything that they need.
PYTHON ?= python3
# Test processes. Many tests wait for a lease or a timeout to end: more of them than cores pays.
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin

# What the tests talk to: PACS, DICOM tools, validators, database; hosts with a wrong clock.
APT_PACKAGES := orthanc orthanc-dicomweb dcmtk dicom3tools libpixelmed-java default-jdk-headless postgresql \
  iproute2 faketime systemd
# The embedded Triton loads the shared library of Python, which Debian packages separately.
LIBPYTHON = $(shell $(PYTHON) -c 'import sys; print(f"libpython{sys.version_info[0]}.{sys.version_info[1]}" \
  if sys.base_prefix == "/usr" else "")')

.PHONY: help doctor demo up servers unit test container-test coverage check docs format lock audit sbom test-tools container-tools clean

help:
	@echo "make doctor  which of make up and the profiles of docker-compose.yml this machine can run"
	@echo "make demo    grade one study end to end on this machine and show the results"
	@echo "make up      run the whole node on this machine until Ctrl-C"
	@echo "make unit    the unit tests: no server, no system package"
	@echo "make test    install what the tests need, then run linters and the whole suite"
	@echo "make container-test  build the images and test docker-compose.yml in real containers (as root)"
	@echo "make coverage  the whole suite with its coverage; report in build/coverage"
	@echo "make check   linters, types, import contracts and the documentation"
	@echo "make docs    build the documentation site into build/docs"
	@echo "make format  fix what ruff can fix"
	@echo "make lock    renew the hashed lock files from pyproject.toml"
	@echo "make audit   ask a source of advisories about every package in the lock files"
	@echo "make sbom    write the bill of materials, build/sbom.cdx.json"
	@echo "make clean   remove environment, caches and build; not data/ and not ~/.cache/epvs-node"

# Needs no environment.
doctor:
	@$(PYTHON) -m node.machine

demo: $(VENV)/.node-ready
	$(BIN)/epvs-node demo

up: $(VENV)/.node-ready
	$(BIN)/epvs-node up

# Which tests stay in one process is decided in tests/conftest.py.
PYTEST := $(BIN)/pytest --numprocesses $(JOBS) --no-loadscope-reorder

unit: $(VENV)/.test-ready
	$(BIN)/pytest --numprocesses logical tests/unit

test: test-tools $(VENV)/.test-ready servers check
	$(PYTEST)

# One process: the tests share one stack and take turns.
container-test: container-tools $(VENV)/.test-ready
	$(BIN)/pytest tests/containers

coverage: test-tools $(VENV)/.test-ready servers
	$(PYTEST) --cov --cov-report term:skip-covered --cov-report html

# Triton and Redis of the embedded stack, in the user's cache; `demo` and `up` install them themselves.
servers: $(VENV)/.test-ready
	@$(BIN)/python -m node.embedded.servers

check: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

# Warnings are errors: broken links, anchors and docstrings that do not render.
docs: $(VENV)/.test-ready
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --jobs auto docs build/docs
	@echo "build/docs/index.html"

format: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- Environments -------------------------------------------------------------------------------
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.node-ready: requirements/node.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --only-binary :all: --require-hashes -r requirements/node.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

# PyTorch by its exact version but without a hash: its CPU and its CUDA build carry the same version.
$(VENV)/.test-ready: requirements/test.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/test.lock
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@ $(VENV)/.node-ready

# Installs those of the packages that are missing.
INSTALL = missing=""; for p in $(1); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q "install ok installed" || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "Installing$$missing"; \
	  if [ "$$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; fi; \
	  $$as_root apt-get update -qq && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

test-tools:
	@$(call INSTALL,$(APT_PACKAGES) $(LIBPYTHON))

container-tools:
	@$(call INSTALL,$(CONTAINER_PACKAGES))
	@docker version >/dev/null 2>&1 || { $(call INSTALL,docker.io); }
	@docker compose version >/dev/null 2>&1 || { $(call INSTALL,docker-compose); }

UV_COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --universal --no-header --no-annotate \
  --python-version 3.11 --no-emit-index-url
lock: $(VENV)/.test-ready
	$(BIN)/python -m pip install --quiet uv
	$(UV_COMPILE) --upgrade pyproject.toml requirements/build.in -o requirements/node.lock
	$(UV_COMPILE) --upgrade pyproject.toml requirements/build.in requirements/test.in -c requirements/node.lock \
	  --extra evaluation --extra compiler --extra dev --extra docs -o requirements/test.lock
	$(UV_COMPILE) --upgrade --no-deps requirements/triton.in -c requirements/node.lock -o node/embedded/triton.lock
	$(UV_COMPILE) --upgrade --no-deps requirements/redis.in -o node/embedded/redis.lock

# ADVISORIES is an OSV query interface. Fails where it cannot be reached.
ADVISORIES ?= https://api.osv.dev/v1/query
audit: $(VENV)/.test-ready
	@$(BIN)/python -m supply_chain.advisories --source $(ADVISORIES)

sbom: $(VENV)/.test-ready
	@$(BIN)/python -m supply_chain.bill_of_materials build/sbom.cdx.json

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
