# The two commands a newcomer needs are `make demo` and `make test`; both make
# their own environment in .venv and can be interrupted and run again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: python-ok
python-ok:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "autocoder-tui needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make PYTHON=python3.12 demo" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian: apt-get install python3-venv" >&2; exit 2; }

# The stamp is written last: an interrupted installation is simply done again.
$(VENV)/installed: pyproject.toml .hatch_build.py | python-ok
	@echo "==> making the environment in $(VENV) and installing autocoder-tui (once, a minute or so)"
	@test -x $(BIN)/python && $(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "==> installing what the tests need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed-dev
	@echo "==> installing what is measured against"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

.PHONY: install demo test test-agents lint check screenshots soak bench clean
install: $(VENV)/installed ## the environment alone

demo: $(VENV)/installed ## the panel on a demo project, with scripted agents; headless without a terminal
	@$(BIN)/autocoder-tui demo

# Three at a time on two cores: a third of the tests' time is spent waiting.
test: $(VENV)/installed-dev ## the per-commit tests
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n 3 --dist loadgroup

lint: $(VENV)/installed-dev ## style, types and layering
	@echo "==> ruff, mypy, import-linter"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

AGENT_PROGRAMS := @openai/codex opencode-ai @google/gemini-cli @playwright/mcp
test-agents: $(VENV)/installed-dev ## real agent programs and a real browser, from npm, against a stub of the models
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/agents $(AGENT_PROGRAMS)
	@PATH="$(CURDIR)/$(VENV)/agents/node_modules/.bin:$$PATH" \
	  $(BIN)/python -m pytest -m agents tests/agents

check: lint test ## everything CI runs

screenshots: $(VENV)/installed-dev ## screenshots/ anew, from the real app
	@$(BIN)/python tests/make_screenshots.py

soak: $(VENV)/installed-dev ## the full-size runs, with their figures
	@$(BIN)/python -m pytest -m soak -s -p no:xdist --timeout 3600

bench: $(VENV)/installed-bench ## the measurements, as a table and as JSON
	@$(BIN)/python tests/benchmarks/run.py

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist
