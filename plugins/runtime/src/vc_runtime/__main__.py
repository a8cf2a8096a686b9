"""The command `vc-runtime`, and `python -m vc_runtime`."""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # Remove the current directory, which `python -m` adds: nothing is imported from it.
    del sys.path[0]

_FEW_COLLECTIONS = 50_000


def main() -> None:
    """Run `vc-runtime`."""
    # Imports create few garbage objects; collecting them repeatedly takes 10 ms.
    gc.set_threshold(_FEW_COLLECTIONS)
    from vc_runtime import command

    sys.exit(command.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
