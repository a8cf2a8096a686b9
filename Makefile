# `make demo` runs a first command, `make test` every check, `make bench` the benchmarks. Each
# prepares the machine first.
.PHONY: demo test bench docs wheels lint generate clean

VC := .venv/bin/vc
PY := .venv/bin/python

demo:
	@tools/prepare demo
	@echo "== vc run --rootfs / -- uname -a" >&2
	@$(VC) run --rootfs / -- uname -a

test:
	@tools/prepare test
	@$(MAKE) --no-print-directory lint
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@# Two tests at a time, in a directory with a short path, as paths of sockets are limited.
	@folder=$$(mktemp -d /tmp/vc.XXXX) && trap 'rm -rf --one-file-system $$folder' EXIT && \
		$(PY) -m pytest --vm-required -n 2 --basetemp $$folder/t

docs:
	@tools/prepare test
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "== the pages are in .make/site" >&2

# Builds a wheel of every distribution, for `pip install --find-links` (see the README).
WHEELS := .make/wheels
wheels:
	@test -x $(PY) || python3 -m venv .venv
	@rm -rf $(WHEELS)
	$(PY) -m pip wheel -q --disable-pip-version-check --no-deps $(WHEEL_OPTIONS) -w $(WHEELS) \
		. $(patsubst %/pyproject.toml,./%,$(wildcard plugins/*/pyproject.toml))
	@echo "== the wheels are in $(WHEELS)" >&2

bench:
	@tools/prepare bench
	$(PY) -m benchmarks

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy vc_core plugins/*/src examples/*/src benchmarks
	.venv/bin/lint-imports --no-logo
	PYTHON=$(PY) plugins/agent_grpc/generate --check
	plugins/agent_grpc/check_guest

generate:
	PYTHON=$(PY) plugins/agent_grpc/generate
	$(PY) -m tools.hooks_page
	$(PY) -m tools.cli_page

clean:
	rm -rf .venv .make
