# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test soak guards check audit lock fast demo-model bench bench-peers bench-browser pictures wheel chromium firefox clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# What serving needs comes with the hashes of its files; the rest is pinned by version alone (docs/decisions/pinned-by-hash.md).
PIP_HASHED := $(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements.txt
TOOLS := build/tools
MODELS ?= build/bench
# Tests wait for browsers, servers and clocks more than they compute: more workers than two cores.
WORKERS ?= 3
PAGE := backend/splitllm/_page/index.html
PAGE_SOURCES := $(shell find web_client \( -name node_modules -o -name test \) -prune -o -type f -print) $(wildcard protocol/schemas/*.json)

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.serve $(PAGE) ## serve tiny-chat and open its page (no torch needed)
	@$(BIN)/splitllm demo $(ARGS)

setup: $(VENV)/.full $(PAGE) ## install everything that developing needs

test: setup chromium firefox ## all tests, those in a real browser included
	cd web_client && npm run --silent test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

fast: setup ## the tests that need neither browser nor export
	cd web_client && npm run --silent test
	$(BIN)/python -m pytest tests/unit tests/fuzz tests/contract tests/integration -m "not slow" $(ARGS)

soak: setup ## ten minutes of cut connections, paused and killed servers; SPLITLLM_SOAK_S=seconds
	$(BIN)/python -m pytest tests/chaos/soak.py -s -q $(ARGS)

guards: setup ## take each guard out, in a copy, and see its test fail: an hour; ARGS="--only REGEX" for some
	$(BIN)/python -m tests.guards $(ARGS)

check: setup ## linters, types, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd web_client && npm run --silent check
	@$(MAKE) --no-print-directory audit

audit: $(TOOLS)/.installed ## known holes in the pinned packages, as far as the advisories can be reached from here
	@found="$$($(TOOLS)/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off 2>&1 || true)"; \
	if grep -q '^Found' <<< "$$found"; then echo "$$found"; exit 1; \
	elif grep -q '^No known' <<< "$$found" && ! grep -q 'could not be audited' <<< "$$found"; then echo "pip-audit: no known vulnerabilities"; \
	else missed="$$(grep -c 'could not be audited' <<< "$$found" || true)"; all="$$(grep -c == constraints.txt)"; \
	if [ "$$missed" = 0 ] || [ "$$missed" = "$$all" ]; then echo "pip-audit: the advisories cannot be reached from here; nothing was checked"; \
	else echo "pip-audit: $$missed of $$all packages could not be asked for from here; no known vulnerabilities in the others"; fi; fi
	@cd web_client && if found="$$(npm audit --audit-level=high 2>&1)"; then echo "npm audit: nothing of high severity"; \
	elif grep -qE 'audit endpoint|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT' <<< "$$found"; then echo "npm audit: the advisories cannot be reached from here; nothing was checked"; \
	else echo "$$found"; exit 1; fi

lock: $(TOOLS)/.installed ## write the hashes of what serving and signing need into requirements*.txt, at the versions of constraints.txt
	@{ echo "# What serving needs, each file with its hash. Renew it with \`make lock\` when constraints.txt changes."; \
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra cpu -c constraints.txt --universal --generate-hashes --no-header --no-annotate --quiet; } > requirements.txt.new
	@mv requirements.txt.new requirements.txt
	@{ echo "# What signatures need beyond requirements.txt, each file with its hash. Renew it with \`make lock\`."; \
	echo cryptography | $(TOOLS)/bin/uv pip compile - -c constraints.txt --universal --generate-hashes --no-header --no-annotate --quiet; } > requirements-sign.txt.new
	@mv requirements-sign.txt.new requirements-sign.txt

demo-model: $(VENV)/.full ## make tiny-chat from nothing: corpus, training, evaluation, bundle
	$(BIN)/python -m demo.build

bench: setup ## measure the engine on random weights in SmolLM2-135M's shape; MODELS=folder keeps them
	$(BIN)/python bench/models.py smollm2-135m --out $(MODELS)
	$(BIN)/splitllm bench engine --bundle $(MODELS)/smollm2-135m.bundle --variant float32 --figures bench/results --json > bench/results/engine.json.new
	mv bench/results/engine.json.new bench/results/engine.json
	$(BIN)/python bench/second_turn.py --bundle $(MODELS)/smollm2-135m.bundle

bench-peers: setup bench/peers/.venv/.installed ## the same beside transformers, onnxruntime-genai, llama.cpp and Optimum
	$(BIN)/python bench/peers/run.py --models $(MODELS) --out bench/results/peers.json $(ARGS)

bench-browser: setup chromium bench/browser/node_modules/.installed ## the page's worker in Chromium beside one graph and transformers.js
	$(BIN)/python bench/models.py smollm2-135m --out $(MODELS)
	$(BIN)/python -m bench.page
	$(BIN)/python -m bench.browser --models $(MODELS) $(ARGS)

pictures: setup chromium ## renew the pictures of the page under docs/images
	$(BIN)/python -m pytest tests/e2e -q -m pictures --update-pictures

wheel: setup ## build the wheel into dist/
	rm -rf dist && $(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## remove what was installed and built
	rm -rf $(VENV) web_client/node_modules backend/splitllm/_page dist

bench/browser/node_modules/.installed: bench/browser/package.json bench/browser/package-lock.json
	@cd bench/browser && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

bench/peers/.venv/.installed: bench/peers/requirements.txt
	@test -x bench/peers/.venv/bin/pip || $(PYTHON) -m venv bench/peers/.venv
	@echo "Installing the engines to compare with into bench/peers/.venv (llama.cpp is compiled) …"
	@bench/peers/.venv/bin/python -m pip --disable-pip-version-check install --quiet -r bench/peers/requirements.txt
	@touch $@

$(TOOLS)/.installed:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1 uv==0.13.9
	@touch $@

# What serving needs: no torch, no test tools.
$(VENV)/.serve: pyproject.toml constraints.txt requirements.txt
	@test -x $(BIN)/pip || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
	@echo "Installing the server into $(VENV) …"
	@$(PIP_HASHED)
	@$(PIP) -e '.[cpu]'
	@touch $@

$(VENV)/.full: pyproject.toml constraints.txt requirements.txt requirements-sign.txt
	@test -x $(BIN)/pip || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }
	@echo "Installing server, exporter and test tools into $(VENV) (a few minutes the first time) …"
	@$(PIP_HASHED) -r requirements-sign.txt
	@$(PIP) -e '.[cpu,sign,export,bench,test,dev]'
	@touch $@ $(VENV)/.serve

web_client/node_modules/.installed: web_client/package.json web_client/package-lock.json
	@command -v npm > /dev/null || { echo "Node.js 20.19 or newer is needed to build the page; install it from your system's packages."; exit 1; }
	@echo "Installing the page's packages …"
	@cd web_client && npm ci --silent --no-audit --no-fund
	@touch $@

$(PAGE): web_client/node_modules/.installed $(PAGE_SOURCES)
	@echo "Building the page …"
	@cd web_client && npm run --silent build
	@touch $@

# The browser tests never skip for want of a browser: it is installed, or the command is named.
chromium:
	@command -v chromium chromium-browser google-chrome google-chrome-stable > /dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing Chromium …"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null; \
	else echo "The browser tests need Chromium: run 'sudo apt-get install chromium' (or your system's way) first."; exit 1; fi

# One test is Firefox's, and skips with this very command where there is none; its WebGPU needs a Vulkan driver.
firefox:
	@command -v firefox-esr firefox > /dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing Firefox …"; { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq firefox-esr mesa-vulkan-drivers > /dev/null; } || true; \
	else echo "The test in Firefox is skipped: 'sudo apt-get install firefox-esr mesa-vulkan-drivers' (or your system's way) brings it."; fi
