"""`python -m pyhv.cli`: the command without its script."""

import sys

from pyhv.cli import main

sys.exit(main())
