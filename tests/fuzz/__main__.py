"""Runs one parser of the host with bytes of atheris: `python -m tests.fuzz NAME [ARGUMENT...]`.

Arguments are those of libFuzzer, https://llvm.org/docs/LibFuzzer.html. See tools/fuzz.
"""

from __future__ import annotations

import sys

import atheris

_OURS = ["vc_core", "vc_qemu", "vc_libvirt", "vc_agent_grpc", "vc_network"]
with atheris.instrument_imports(include=_OURS):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv[1]
    if name not in TARGETS:
        sys.exit(f"no target {name}; there are: {', '.join(TARGETS)}")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


main()
