"""`python -m pyhv.cli`: the command without its script."""

from __future__ import annotations

import sys

from pyhv.cli import main

sys.exit(main())
