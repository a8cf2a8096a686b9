"""python -m vc_core is vc."""

from vc_core.cli import main

main()
