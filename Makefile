# Everything runs in .venv, which the first target creates. `make help` lists
# the targets.

PYTHON ?= python3
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
# Empty: the newest versions that the requirement files admit.
CONSTRAINTS ?= constraints.txt
OLDEST ?= python-watcher==14.0.0
OLDEST_TESTS ?= tests/unit tests/property tests/scenarios tests/plugins \
  tests/functional
# oslo.policy 5 lacks an option that this Placement reads.
PLACEMENT_OLD ?= openstack-placement==13.0.1 oslo.policy==4.8.0
OLD_TESTS ?= tests/functional/test_old_placement.py
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

# The environment must not see packages of another one, and nothing that is
# on this machine may be looked for behind a proxy.
unexport PYTHONPATH
unexport PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1
comma := ,
export no_proxy := $(if $(no_proxy),$(no_proxy)$(comma))127.0.0.1,localhost
export NO_PROXY := $(no_proxy)

# pbr counts commits since the last tag for the version. An unpacked archive, a
# clone of depth 1 and a clone that git refuses to read (another owner) have
# none to count.
HISTORY := $(shell git describe --tags --exact-match 2>/dev/null || \
  git rev-list -n 2 HEAD 2>/dev/null | sed -n 2p)
VERSION := $(if $(HISTORY)$(PBR_VERSION)$(wildcard PKG-INFO),,\
  PBR_VERSION=0.0.1.dev0)

BIN := $(VENV)/bin/python
PACKAGE := setup.py setup.cfg pyproject.toml requirements.txt
RUN_FILES := test-requirements.txt functional-requirements.txt
TOOL_FILES := lint-requirements.txt doc/requirements.txt
CONSTRAIN := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
RUN_STAMP := $(VENV)/.stamp-run
TOOL_STAMP := $(VENV)/.stamp-tools
OLDEST_STAMP := $(VENV_OLDEST)/.stamp-run
PYTEST := -m pytest $(PYTEST_ARGS)
# The quick ones first, in a process of their own: what Watcher's modules load
# (eventlet) and what the functional tests load do not go together.
QUICK := tests/unit tests/property tests/scenarios tests/simulation
# What loads Watcher's own modules has a process of its own too: their locks
# become eventlet's, and a test that serves HTTP would wait for ever.
PLUGINS := tests/plugins

define create_venv
@command -v $(PYTHON) >/dev/null 2>&1 || { \
  echo "Python is missing: install python3 (3.11 or later) and" \
    "python3-venv, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "watcher-cputier needs Python 3.11 or later and $(PYTHON) is older:" \
    "name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1 || { \
  echo "$(PYTHON) cannot create virtual environments: install its venv" \
    "module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
@$(1)/bin/python -c 'import pip' >/dev/null 2>&1 || { \
  rm -rf $(1) && $(PYTHON) -m venv $(1); }
endef

##@ Try it

.PHONY: demo
demo: $(RUN_STAMP) ## Run the demo; KEEP=1 leaves its cloud running
	@$(BIN) -m demo $(if $(KEEP),--keep)

.PHONY: clean-demo
clean-demo: ## Stop a demo that was kept and remove its state
	@if [ -x $(BIN) ]; then $(BIN) -m demo --clean; fi
	@rm -rf .demo

##@ Test it

.PHONY: test
test: $(RUN_STAMP) ## Run all tests: unit, property, scenarios, functional
	@$(BIN) $(PYTEST) $(QUICK)
	@$(BIN) $(PYTEST) $(PLUGINS)
	@$(BIN) $(PYTEST) tests/functional
	@$(MAKE) test-old-placement

.PHONY: unit
unit: $(RUN_STAMP) ## Run the tests that need no services
	@$(BIN) $(PYTEST) $(QUICK)
	@$(BIN) $(PYTEST) $(PLUGINS)

.PHONY: functional
functional: $(RUN_STAMP) ## Run the tests on real Nova, Placement, Watcher
	@$(BIN) $(PYTEST) tests/functional

.PHONY: test-oldest
test-oldest: $(OLDEST_STAMP) ## Run OLDEST_TESTS on the oldest Watcher
	@for tests in $(OLDEST_TESTS); do \
	  $(VENV_OLDEST)/bin/python $(PYTEST) $$tests || exit 1; done

# OLD_TESTS=tests/functional runs everything; what cannot come to its end there,
# since Placement lets nobody leave a full host, counts as xfailed.
.PHONY: test-old-placement
test-old-placement: $(RUN_STAMP) ## Run its stories on a Placement before 14.0
	@$(BIN) -m pip install -qq --progress-bar off --no-deps --upgrade \
	  --target .placement-old $(PLACEMENT_OLD)
	@OLD_PLACEMENT=$(CURDIR)/.placement-old $(BIN) $(PYTEST) $(OLD_TESTS)

.PHONY: cover
cover: $(RUN_STAMP) ## Run the tests without services, report the coverage
	@$(BIN) -m coverage run $(PYTEST) $(QUICK)
	@$(BIN) -m coverage html -d cover --quiet
	@$(BIN) -m coverage report

.PHONY: bench
bench: $(RUN_STAMP) ## Run the benchmarks
	@$(BIN) -m benchmarks

##@ Check it

# Existing folders only: an archive may come without some of them.
CODE := setup.py $(wildcard watcher_cputier tests demo benchmarks devstack doc \
  tools releasenotes)
SHELL_FILES := .ci/run $(wildcard devstack/*.sh devstack/settings \
  devstack/override-defaults tests/devstack/*.sh tools/*.sh)
TEXT := $(wildcard *.rst devstack doc/source releasenotes/source)

.PHONY: lint
lint: $(TOOL_STAMP) ## Run every linter and the type checker
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check --quiet --output-format concise . || { \
	  echo "not formatted, cured by: make format" >&2; exit 1; }
	@$(BIN) -m flake8 $(CODE)
	@$(BIN) -m codespell_lib
	@$(BIN) -m sphinxlint --enable all --disable line-too-long \
	  --disable leaked-markup $(TEXT)
	@$(BIN) -m doc8 --quiet $(TEXT)
	@$(BIN) -m reno.main --quiet lint
	@$(VENV)/bin/shellcheck -x $(SHELL_FILES)
	@$(BIN) -m mypy

.PHONY: format
format: $(TOOL_STAMP) ## Format the code and sort its imports
	@$(BIN) -m ruff check --fix-only --select I .
	@$(BIN) -m ruff format .

##@ Document it

.PHONY: docs
docs: $(TOOL_STAMP) ## Build the documentation, warnings are errors
	@$(BIN) -m sphinx -W --keep-going -n -q -b html doc/source doc/build/html
	@echo "Documentation: doc/build/html/index.html"

.PHONY: releasenotes
releasenotes: $(TOOL_STAMP) ## Build the release notes
	@$(BIN) -m sphinx -W --keep-going -q -b html \
	  releasenotes/source releasenotes/build/html
	@echo "Release notes: releasenotes/build/html/index.html"

.PHONY: genconfig
genconfig: $(RUN_STAMP) ## Write etc/watcher_cputier.conf.sample
	@mkdir -p etc
	@$(BIN) -m oslo_config.generator --namespace watcher_cputier \
	  --output-file etc/watcher_cputier.conf.sample
	@echo "Sample configuration: etc/watcher_cputier.conf.sample"

##@ Maintain it

.PHONY: constraints
constraints: ## Renew constraints.txt with the newest versions that fit
	@rm -rf $(VENV)
	@$(MAKE) CONSTRAINTS= $(TOOL_STAMP)
	@{ echo "# Versions known to work together. Written by" \
	    "'make constraints'."; \
	  $(BIN) -m pip freeze --exclude-editable --exclude watcher-cputier; \
	} > constraints.txt

.PHONY: clean
clean: clean-demo ## Remove the environments and everything generated
	@rm -rf $(VENV) $(VENV_OLDEST) .placement-old build dist *.egg-info .eggs doc/build \
	  releasenotes/build etc/*.sample cover .coverage .mypy_cache .pytest_cache \
	  .ruff_cache .hypothesis .prometheus

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# One environment for everything; each step names the files of the one before
# as well, so that pip never trades one requirement for another.

$(RUN_STAMP): $(PACKAGE) $(RUN_FILES) $(CONSTRAINTS)
	$(call create_venv,$(VENV))
	@echo "Installing the services, about a minute ..."
	@$(VERSION) $(BIN) -m pip install -qq --progress-bar off $(CONSTRAIN) \
	  -e . $(addprefix -r ,$(RUN_FILES))
	@touch $@

$(TOOL_STAMP): $(RUN_STAMP) $(TOOL_FILES)
	@echo "Installing the linters and Sphinx, half a minute ..."
	@$(BIN) -m pip install -qq --progress-bar off $(CONSTRAIN) \
	  $(addprefix -r ,requirements.txt $(RUN_FILES) $(TOOL_FILES))
	@touch $@

$(OLDEST_STAMP): $(PACKAGE) $(RUN_FILES)
	$(call create_venv,$(VENV_OLDEST))
	@echo "Installing $(OLDEST), about a minute ..."
	@$(VERSION) $(VENV_OLDEST)/bin/python -m pip install -qq --progress-bar off \
	  -e . $(addprefix -r ,$(RUN_FILES)) $(OLDEST)
	@touch $@
