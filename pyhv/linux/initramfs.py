"""The initial RAM disk of a machine that runs one command: its init, the modules, and the job."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import HostError
from pyhv.linux.cpio import CpioArchive
from pyhv.linux.modules import unpacked_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyhv.linux.job import Job
    from pyhv.linux.modules import ModuleTree

INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init.elf")
"""The guest's first process, built with the package from init/*.c."""


def initramfs(job: Job, modules: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """The archive, not packed: the kernel would take longer to unpack it than to copy it. Raises HostError.

    `modules`: (path, content) of what the job names.
    """
    archive = CpioArchive()
    archive.character_device("dev/console", 5, 1)
    archive.file("init", _init(), 0o755)
    for path, content in modules:
        archive.file(path, content)
    archive.file("pyhv/job", job.encode())
    return archive.to_bytes()


def module_files(tree: ModuleTree, order: Iterable[str]) -> list[tuple[str, bytes]]:
    """(path in the archive, content) of modules in their order. Raises ConfigError, CapabilityMissing."""
    files = []
    for path in order:
        content = tree.read(path)
        tree.check_release(path)
        files.append((f"lib/modules/{unpacked_path(path)}", content))
    return files


def _init() -> bytes:
    try:
        with open(INIT, "rb") as file:
            return file.read()
    except OSError as error:
        raise HostError(
            f"the guest's init was not built into this installation ({INIT}: {error.strerror}): "
            "it needs gcc for x86-64 when pyhv is installed"
        ) from None
