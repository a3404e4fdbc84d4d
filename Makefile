# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests. Each sets itself up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
INSTALLED := $(VENV)/.installed
TEST_WORKERS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup check-system demo test soak lint format proto docs lock bench ghz clean
help:
	@echo 'make demo    install, train on S&P 500 and NASDAQ bars, export, serve, replay a year through Predict'
	@echo 'make test    install and run the tests'
	@echo 'make soak    the campaigns among the tests at full size: millions of requests, many kills'
	@echo 'make lint    ruff, mypy --strict, import-linter'
	@echo 'make proto   generate the Python code of proto/ again'
	@echo 'make docs    generate docs/reasons.md, docs/metrics.md and the dashboard again'
	@echo 'make bench   measure: tables, no assertions'
	@echo 'make ghz     load a server in the shapes of bench/ghz: steady, step, spike (SHAPES=soak for the long one)'
	@echo 'make lock    resolve requirements/*.txt again (needs uv)'

setup: $(INSTALLED)

check-system:
	@deploy/check-system "$(PYTHON)"

$(INSTALLED): $(LOCK) pyproject.toml deploy/check-system deploy/install
	@$(MAKE) --no-print-directory check-system
	@echo 'setting up $(VENV) from $(LOCK)'
	@"$(PYTHON)" -m venv $(VENV)
	@deploy/install $(BIN)/python $(LOCK)
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/tickgate demo

test: $(INSTALLED)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

soak: $(INSTALLED)
	@$(BIN)/python -m pytest --soak -v --log-cli-level=INFO

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(INSTALLED)
	@$(BIN)/python proto/generate.py

docs: $(INSTALLED)
	@$(BIN)/python docs/generate.py
	@$(BIN)/python deploy/grafana/generate.py
	@$(BIN)/python docs/query_columns.py

bench: $(INSTALLED)
	@$(BIN)/python -m bench

SHAPES ?=
ghz: $(INSTALLED)
	@$(BIN)/python -m bench.ghz_load $(SHAPES)

# One resolution for every platform and Python; hashes, and no index addresses.
UV ?= uv
COMPILE = $(UV) pip compile pyproject.toml --universal --generate-hashes --no-header --no-emit-index-url --quiet
lock:
	$(COMPILE) --all-extras -o requirements/dev.txt
	$(COMPILE) --extra server --extra build -c requirements/dev.txt -o requirements/server.txt
	$(COMPILE) --extra build -c requirements/dev.txt -o requirements/client.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
