# One line a job; CI runs the same. `make run` and `make test` need Python >= 3.10 and a C library, nothing else.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q

.PHONY: run test notebooks docs lint bench lock screenshots clean

run: .venv/run-ready  ## the hub on 127.0.0.1:8000 (OBERALP_SITE and OBERALP_PORT choose another site and port)
	@$(PY) -m jupyterhub -f jupyterhub_config.py

test: .venv/test-ready  ## every test that this machine can run; lists what it cannot, and what would enable it
	$(PY) -m tests

notebooks: .venv/test-ready  ## every notebook in smoke, unattended, judged: results and HTML pages in var/notebooks
	$(PY) -m tests.notebooks --again 1 --out var/notebooks --gallery var/notebooks/gallery

docs: .venv/test-ready  ## the documentation site in var/docs, warnings are errors
	$(PY) -m sphinx -b html -c docs -q -W --keep-going . var/docs

lint: .venv/test-ready  ## ruff and mypy
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

bench: .venv/test-ready  ## every claim about spawners beside its stock peer, into benchmarks/results; hours: see benchmarks/README.md
	$(PY) -m benchmarks.spawners_all

screenshots: .venv/test-ready  ## the pictures of docs/images, made from a running hub
	$(PY) -m tests.browser.screenshots

# asyncio of PyPI, which a dependency of pyfirecrest names, is left out: it is the standard library of Python 3.3
lock:  ## names, versions and hashes of everything but torch (see pyproject.toml); needs uv
	uv pip compile -q --generate-hashes --no-header --no-emit-package asyncio -c requirements/torch.txt -o requirements/dev.txt spawners/pyproject.toml extensions/pyproject.toml requirements/hub.in requirements/session.in requirements/dev.in
	uv pip compile -q --generate-hashes --no-header --no-emit-package asyncio -c requirements/torch.txt -c requirements/dev.txt -o requirements/hub.txt spawners/pyproject.toml requirements/hub.in
	uv pip compile -q --generate-hashes --no-header --no-emit-package asyncio -c requirements/torch.txt -c requirements/dev.txt -o requirements/session.txt extensions/pyproject.toml requirements/session.in

clean:  ## the state of `make run` (users' homes, database, log)
	rm -rf var

# The locks are complete, so nothing is resolved at install time (--no-deps) and every file is checked against its hash.
.venv/run-ready: requirements/hub.txt requirements/session.txt requirements/torch.txt spawners/pyproject.toml extensions/pyproject.toml package-lock.json
	@echo "Setting up .venv: some minutes the first time."
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PIP) install -r requirements/torch.txt
	@$(PIP) install --no-deps --require-hashes -r requirements/hub.txt -r requirements/session.txt
	@$(PIP) install --no-deps --no-build-isolation -e spawners -e extensions
	@$(PY) -m hybridspawner.proxy
	@touch $@

.venv/test-ready: .venv/run-ready requirements/dev.txt
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@touch $@
