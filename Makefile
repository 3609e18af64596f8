# Every target sets up what it needs first; a set-up that is complete takes a fraction of a second.

SET_UP = tools/python tools/set_up.py
BIN = .venv/bin

.DEFAULT_GOAL := help
# Tests and benchmarks start hundreds of processes, each of which would compile all of kicourse anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup lab test test-attacks test-long lint bench build audit pins dev

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

setup: ## install everything into .venv: packages and the embedded models
	@$(SET_UP)

lab: setup ## open the course in JupyterLab (dir=FOLDER lang=de port=8900 change what is opened)
	@$(BIN)/kicourse lab $(dir) $(if $(lang),--lang $(lang)) $(if $(port),--port $(port))

# One thread each; three at a time for two cores, since some tests only wait: for a browser, a server, a limit of time.
test: dev ## run the test suite
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadgroup -m "not long"

test-attacks: dev ## let every attack of tests/hostile be graded beside honest work
	@$(BIN)/pytest tests/hostile/test_corpus.py

test-long: dev ## run the tests that take minutes: attacks, killed processes, a cluster, stock nbgrader
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m long

lint: dev ## check style, types, and that the committed notebooks are what their sources build
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/kicourse build --check

bench: dev ## run the benchmarks and write benchmarks/RESULTS.md
	@$(BIN)/python benchmarks/run.py

build: setup ## build exercises/ and solutions/ from course/
	@$(BIN)/kicourse build

audit: setup ## try every check against slightly wrong solutions (unit=mini_gpt for one unit)
	@$(BIN)/kicourse audit $(unit)

pins: dev ## write constraints.txt anew from the versions in .venv
	@{ sed -n 1p constraints.txt; \
	   $(BIN)/pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

dev:
	@$(SET_UP) --dev
