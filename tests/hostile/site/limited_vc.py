"""`vc` with a limit of memory, which writes down what it needed at most: a file, then the words of
the command.
"""

from __future__ import annotations

import sys
from pathlib import Path

from limited import limited


def main() -> None:
    from vc_core.__main__ import main as vc

    with limited(Path(sys.argv.pop(1))):
        vc()


if __name__ == "__main__":
    main()
