"""The command `vc`, and `python -m vc_core`."""

from __future__ import annotations

import sys

from vc_core import __version__


def main() -> None:
    """The entry point. Scripts ask for the version often: that needs no parser of options."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"vc {__version__}\n")
        return
    from vc_core import cli

    cli.main()


if __name__ == "__main__":
    main()
