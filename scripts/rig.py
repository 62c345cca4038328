#!/usr/bin/env python3
"""Runs a command of this project on an AMD machine with AMD-V: QEMU's emulated one, where the host has none.

    scripts/rig.py [option ...] [--] COMMAND [ARGUMENT ...]
    scripts/rig.py --selfcheck
    scripts/rig.py --shell

Debian's kernel boots with its own kvm_amd and nested paging on; the host's file system is there, read-only under a
tmpfs. `--help` has the options and what the exit status says. Needs root, and `make deps kernels` once.
"""

import sys

from amdv_rig.cli import main

if __name__ == "__main__":
    sys.exit(main())
