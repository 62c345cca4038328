"""`python -m pyhv.cli`: the command without its script."""

from __future__ import annotations

from pyhv.startup import main

main()
