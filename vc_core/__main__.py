"""The command `vc`, and `python -m vc_core`."""

from __future__ import annotations

import contextlib
import gc
import sys

from vc_core import __version__

if __name__ == "__main__" and not sys.flags.safe_path:
    # Remove the current directory, which `python -m` adds: nothing is imported from it.
    del sys.path[0]

from vc_core import standard_streams

_FEW_COLLECTIONS = 100_000


def main() -> None:
    """Run `vc`. `vc --version` is answered without importing click."""
    standard_streams.set_up()
    if sys.argv[1:] == ["--version"]:
        with contextlib.suppress(OSError):  # reported below
            sys.stdout.write(f"vc {__version__}\n")
        if reason := standard_streams.finish():
            with contextlib.suppress(OSError):
                sys.stderr.write(f"vc: error: stdout cannot be written: {reason}\n")
            standard_streams.finish()
            sys.exit(125)
        return
    # Imports create few garbage objects; collecting them repeatedly takes 25 ms.
    gc.set_threshold(_FEW_COLLECTIONS)
    from vc_core import cli

    try:
        cli.main()
    finally:
        # The end of the process frees all memory; the interpreter's last collections take 20 ms.
        gc.freeze()


if __name__ == "__main__":
    main()
