# Every target makes .venv when it is missing or older than the lock, and does nothing again when it is current.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
DEBIAN_DATA := dataset-fashion-mnist sweethome3d-furniture \
	$(foreach language,en es fr it ru,asterisk-core-sounds-$(language)-wav)
DEBIAN_BROWSER := chromium chromium-driver

.DEFAULT_GOAL := help
.PHONY: help quickstart test integration smoke docs notebooks faults faults-all fuzz lint format lock layers bench gpu debian clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(READY) ## train a Perceiver on sight and sound and print what it reached (5 to 7 minutes)
	$(BIN)/python -m src.fit --config configs/quickstart.yaml

test: $(READY) ## all tests but those of the next two targets, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not smoke and not integration"

integration: $(READY) ## tests with processes of their own: ranks, kills, suites, a browser, the image's script
	$(BIN)/python -m pytest -n auto --dist loadfile -m integration

smoke: $(READY) ## try every config: two steps and an evaluation on tiny files
	$(BIN)/python -m pytest -n auto -m smoke

docs: $(READY) ## the documentation site, into build/site; notebooks that changed are executed; a warning is an error
	PYTHONWARNINGS="ignore:IProgress not found" \
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/site
	@echo "open build/site/index.html"

notebooks: $(READY) ## the site, with all notebooks executed anew (2 minutes)
	rm -rf build/notebooks build/doctrees runs/notebooks runs/notebooks_compared data/notebooks
	$(MAKE) docs

faults: $(READY) ## kill runs at every 15th system call that changes a file, and count what is lost (10 minutes)
	$(BIN)/python -m tests.support.boundaries --every 15

faults-all: $(READY) ## the same at every one (hours)
	$(BIN)/python -m tests.support.boundaries

fuzz: $(READY) ## 300 broken or hostile configs, run folders and data for every command (40 minutes)
	$(BIN)/python -m tests.support.fuzz 300
	$(BIN)/python -m tests.support.fuzz_data

lint: $(READY) ## style, imports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

format: $(READY) ## rewrite files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## renew requirements.lock from the ranges in pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --upgrade --generate-hashes \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock

layers: ## draw the rooms of the project and what each imports
	@$(PYTHON) -m tests.support.layers

bench: $(READY) ## time the backbones side by side, CSV into results/
	$(BIN)/python -m src.benchmark backbones

gpu: $(READY) ## checks and benchmarks on a GPU (9 minutes), CSV into results/
	$(BIN)/python -m src.benchmark gpu

debian: ## as root: install Debian's real data sets and browser, which some tests use where they are installed
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(DEBIAN_DATA) $(DEBIAN_BROWSER)

clean: ## remove what the targets made, data and runs excepted
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# uv, itself taken from the lock with its hash, installs the rest in parallel
$(READY): requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@
