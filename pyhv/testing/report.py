"""What a failed test says of its machine."""

from __future__ import annotations

import json

from pyhv._types import TYPE_CHECKING
from pyhv.errors import PyhvError

if TYPE_CHECKING:
    from pathlib import Path

    from pyhv.vm import Vm

TAIL_LINES = 25


def sections(vm: Vm, log: Path, cause: BaseException | None) -> list[tuple[str, str]]:
    """Titles and texts, but for what the error that failed the test, `cause`, has said already.

    Stops the machine: its registers can be read then. The Result goes to a file beside the log.
    """
    running = vm.outcome is None
    verdict = "still running when the test failed" if running else ""
    try:
        vm.stop()
        result = vm.result()
    except PyhvError as error:
        return [("verdict", f"it could not be stopped: {error}"), ("console (tail)", _tail(vm))]
    document = log.with_name(log.stem.replace("console", "result") + ".json")
    try:
        document.write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    except OSError as error:
        return [("verdict", f"{result.summary()}\n{document} cannot be written: {error.strerror}")]
    files = [("backend", f"{result.backend}: {result.backend_reason}"), ("artifacts", f"{log}\n{document}")]
    if getattr(cause, "result", None) is result and result.registers:
        return files
    return [
        ("verdict", verdict or result.summary()),
        ("console (tail)", _tail(vm)),
        ("registers", "\n".join(_registers(vm))),
        ("last exits", "\n".join(_exits(vm)) or "(none)"),
        *files,
    ]


def _tail(vm: Vm) -> str:
    return vm.console.tail(TAIL_LINES) or "(nothing)"


def _registers(vm: Vm) -> list[str]:
    texts = []
    for loop in vm.loops:
        try:
            text = loop.registers or loop.vcpu.dump()
        except PyhvError as error:
            text = f"cannot be read: {error}"
        texts.append((f"vCPU {loop.vcpu.index}:\n" if len(vm.loops) > 1 else "") + text)
    return texts


def _exits(vm: Vm) -> list[str]:
    several = len(vm.loops) > 1
    return [(f"vCPU {loop.vcpu.index} " if several else "") + repr(exit) for loop in vm.loops for exit in loop.recent]
