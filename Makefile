# `make demo` runs a first command, `make test` every check, `make bench` the benchmarks. Each
# prepares the machine first.
.PHONY: demo test test-long conformance conformance-validation conformance-critest conformance-at-once conformance-kubernetes bench fuzz soak leaks docs wheels lint generate clean

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

# All of CI, and what takes long: each parser for a minute, and many lives of pods.
test-long: test
	@$(MAKE) --no-print-directory fuzz SECONDS=60
	@$(MAKE) --no-print-directory soak LIVES=500

# The parsers of untrusted bytes, for SECONDS each; TARGETS="host/record ..." chooses some.
SECONDS := 60
fuzz:
	@tools/prepare fuzz
	$(PY) -m tools.fuzz --seconds $(SECONDS) $(TARGETS)

# Lives of pods with faults; its report is .make/soak.json. OPTIONS="--resume" goes on with it.
LIVES := 5000
OPTIONS :=
soak:
	@tools/prepare test
	$(PY) -m tests.soak --lives $(LIVES) $(OPTIONS)

# Writes the tables of docs/reliability.md anew; takes minutes.
leaks:
	@tools/prepare test
	$(PY) -m tools.leaks

# Other people's tests of OCI runtimes, which Go builds; takes up to an hour. PROGRAMS="start kill" and
# FOCUS=Networking choose some, RUNTIMES=vc-runtime leaves out runc and crun, CONTAINERD=debian takes
# the installed one, COUNT=5 fewer pods at once.
RUNTIMES := vc-runtime,runc,crun
FOCUS :=
CONTAINERD := pinned
COUNT := 20
conformance: conformance-validation conformance-critest conformance-at-once conformance-kubernetes
conformance-validation:
	@tools/prepare conformance
	$(PY) -m conformance validation --runtimes $(RUNTIMES) $(PROGRAMS)
# Without crun: that of Debian refuses the version of config.json that containerd 2.4 writes.
conformance-critest:
	@tools/prepare conformance
	$(PY) -m conformance critest --containerd $(CONTAINERD) \
		--runtimes $(subst $(COMMA)crun,,$(RUNTIMES)) '$(FOCUS)'
conformance-at-once:
	@tools/prepare conformance
	$(PY) -m conformance at-once --containerd $(CONTAINERD) \
		--runtimes $(subst $(COMMA)crun,,$(RUNTIMES)) --count $(COUNT)
COMMA := ,
conformance-kubernetes:
	@tools/prepare conformance
	$(PY) -m conformance kubernetes --runtimes $(subst $(COMMA)crun,,$(RUNTIMES))

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
	.venv/bin/mypy vc_core plugins/*/src examples/*/src benchmarks conformance
	.venv/bin/lint-imports --no-logo
	PYTHON=$(PY) plugins/agent_grpc/generate --check
	plugins/agent_grpc/check_guest

generate:
	PYTHON=$(PY) plugins/agent_grpc/generate
	$(PY) -m tools.hooks_page
	$(PY) -m tools.cli_page

clean:
	rm -rf .venv .make
