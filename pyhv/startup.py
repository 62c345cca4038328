"""The `pyhv` command's start: main() with the modules that a run needs read from one file, and a quick end.

Finding and opening eighty byte code files takes longer than a tiny guest's whole life. `write()` puts their code into one
file beside them, and an entry of it counts under the same rule as a .pyc: only while its source has the size and time that it
had. What is not in the file, or is newer than it, is imported the usual way.
"""

from __future__ import annotations

import _frozen_importlib_external as _importlib
import gc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _signal import SIG_DFL, SIGHUP, SIGTERM, getsignal, signal  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

    Entries = dict[str, tuple[str, int, int, CodeType]]

ROOTS = (
    "pyhv.boot.firmware",
    "pyhv.boot.multiboot",
    "pyhv.cli.arguments",
    "pyhv.cli.run",
    "pyhv.hv.kvm.hypervisor",
)
"""These and all that they import are what running a guest on KVM takes."""
SIM_ROOTS = ("pyhv.hv.sim.hypervisor", "pyhv.turns")
"""And these what it takes in the simulator: a second file, read when the first of them is imported."""
SIM_PACKAGE = "pyhv.hv.sim"

GC_THRESHOLD = 50_000
"""More objects than a run of a tiny guest makes: looking for garbage among its modules would find none."""

_HOME = os.path.dirname(os.path.abspath(__file__))
SIM_SUFFIX = ".sim"
BUNDLE = f"{_HOME}/__pycache__/startup.{sys.implementation.cache_tag}.bin"


class _Loader(_importlib.SourceFileLoader):
    """A source file whose code is at hand already."""

    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class Bundle:
    """A finder for the modules of a bundle: {name: (file below _HOME, time, size, code)}; `more` is the second file."""

    def __init__(self, entries: Entries, more: str) -> None:
        self.entries = entries
        self.stale = False
        self._more = more

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == SIM_PACKAGE:
            self.entries.update(_read(self._more) or {})
        entry = self.entries.get(name)
        if entry is None:
            return None
        file, time, size, code = entry
        file = f"{_HOME}/{file}"
        try:
            status = os.stat(file)
        except OSError:
            return None
        if status.st_mtime_ns != time or status.st_size != size:
            self.stale = True
            return None
        loader = _Loader(name, file)
        loader.code = code
        spec = ModuleSpec(name, loader, origin=file)
        spec.has_location = True
        spec.cached = BUNDLE
        if file.endswith("/__init__.py"):
            spec.submodule_search_locations = [os.path.dirname(file)]
        return spec


def read(path: str = BUNDLE) -> Bundle | None:
    """The bundle, None where there is none for this interpreter."""
    entries = _read(path)
    return None if entries is None else Bundle(entries, path + SIM_SUFFIX)


def _read(path: str) -> Entries | None:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        magic = _importlib.MAGIC_NUMBER
        if not data.startswith(magic):
            return None
        entries: Entries = marshal.loads(memoryview(data)[len(magic) :])
        return entries
    except (OSError, ValueError, EOFError, TypeError):
        return None


def write(path: str = BUNDLE) -> None:
    """Write the bundle and its second file. Raises OSError, and what imports raise."""
    first = {name for name in _closure(ROOTS) if not name.startswith(SIM_PACKAGE)}
    _write(path, first)
    _write(path + SIM_SUFFIX, _closure(SIM_ROOTS) - first)


def _closure(roots: Sequence[str]) -> set[str]:
    """The modules of this package that are there once the roots have been imported."""
    for root in roots:
        __import__(root)
    return {name for name in sys.modules if name.startswith("pyhv.") and name != __name__}


def _write(path: str, names: set[str]) -> None:
    entries: Entries = {}
    for name in sorted(names):
        module = sys.modules[name]
        file = getattr(module, "__file__", None) or ""
        if file.endswith(".py") and file.startswith(f"{_HOME}/"):
            status = os.stat(file)
            code = _importlib.SourceFileLoader(name, file).get_code(name)
            assert code is not None
            entries[name] = (file[len(_HOME) + 1 :], status.st_mtime_ns, status.st_size, code)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as out:
        out.write(_importlib.MAGIC_NUMBER + marshal.dumps(entries))
    os.replace(temporary, path)


class Ending:
    """Has SIGTERM and SIGHUP end the machine as Ctrl-C does, so that terminal, sockets and images are left in order.

    The process then ends by the signal all the same; a second one ends it at once.
    """

    def __init__(self) -> None:
        self.number = 0
        for number in (SIGTERM, SIGHUP):
            if getsignal(number) == SIG_DFL:  # not under nohup
                signal(number, self._came)

    def _came(self, number: int, frame: object) -> NoReturn:
        self.number = number
        signal(number, SIG_DFL)
        raise KeyboardInterrupt(f"ended by {'SIGTERM' if number == SIGTERM else 'SIGHUP'}")

    def finish(self) -> None:
        """End by the signal that came."""
        if self.number:
            os.kill(os.getpid(), self.number)


def main() -> NoReturn:
    """The `pyhv` command."""
    gc.set_threshold(GC_THRESHOLD)
    ending = Ending()
    bundle = read()
    if bundle is not None:
        finders: list[Any] = sys.meta_path
        finders.insert(0, bundle)
    from pyhv.cli import main

    status = main()
    ending.finish()
    if (bundle is None or bundle.stale) and sys.argv[1:2] == ["run"] and not sys.dont_write_bytecode:
        from contextlib import suppress

        with suppress(Exception):  # like byte code it only saves time, and may be impossible to keep
            write()
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process. Every VM has been closed: where no thread is left there is nothing to take apart."""
    threads = sys.modules.get("threading")
    if threads is None or threads.active_count() == 1:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(status)
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    write()
