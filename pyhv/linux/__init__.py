"""Linux made easy: a command inside a kernel, with this machine's files as its root.

    result = pyhv.run_command("vmlinuz", ["uname", "-r"], timeout=60).check()
    print(result.stdout)

The initial RAM disk is made here: it holds a small first process (init/), and the kernel modules that the machine needs.
"""

from __future__ import annotations

from pyhv.linux.command import Command, run_command
from pyhv.linux.result import CommandResult

__all__ = ["Command", "CommandResult", "run_command"]
