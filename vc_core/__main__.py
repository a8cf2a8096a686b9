"""The command `vc`, and `python -m vc_core`."""

from __future__ import annotations

import contextlib
import gc
import sys

from vc_core import __version__

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[
        0
    ]  # the current folder, which `python -m` puts there: nothing else is imported from it

from vc_core import standard_streams

_FEW_COLLECTIONS = 50_000


def main() -> None:
    """The entry point. Scripts ask for the version often: that needs no parser of options."""
    standard_streams.set_up()
    if sys.argv[1:] == ["--version"]:
        with contextlib.suppress(OSError):  # which is told next
            sys.stdout.write(f"vc {__version__}\n")
        if reason := standard_streams.finish():
            with contextlib.suppress(OSError):
                sys.stderr.write(f"vc: error: stdout cannot be written: {reason}\n")
            standard_streams.finish()  # of that
            sys.exit(125)
        return
    gc.set_threshold(
        _FEW_COLLECTIONS
    )  # what imports make stays: to look through it again and again costs 10 ms
    from vc_core import cli

    cli.main()


if __name__ == "__main__":
    main()
