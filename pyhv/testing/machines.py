"""What stands behind the plugin's fixtures: backends, machines from marks, and their end."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, HostError, PyhvError
from pyhv.hv.names import REQUIREMENTS
from pyhv.hv.select import select
from pyhv.machine import Machine
from pyhv.record import field_names
from pyhv.result import Outcome
from pyhv.testing import report
from pyhv.units import check_timeout
from pyhv.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any

    from pyhv.hv.select import Selection
    from pyhv.result import Result

DEFAULT_TIMEOUT = 60.0
"""Seconds that a machine may run where the mark does not say: a hang must end."""
_FIELDS = frozenset(field_names(Machine))
_OURS = ("timeout", "backends", "seed")


def need_backend(name: str, required: Sequence[str]) -> Selection:
    """The backend; skips the running test where the host lacks it, or fails it where `required` demands it.

    "amd-v" is KVM on a CPU that shows SVM.
    """
    if name == "amd-v":
        demands = ["amd-v"]
    else:
        demands = [demand for demand in required if demand in REQUIREMENTS and name in ("auto", "kvm")]
    try:
        return select("kvm" if name == "amd-v" else name, demands)
    except HostError as error:
        missing = str(error)
    if name in required or (demands and name != "amd-v"):
        pytest.fail(f"backend {name} is required (--pyhv-require): {missing}", pytrace=False)
    pytest.skip(f"backend {name}: {missing}")


class WatchedVm(Vm):
    """A Vm that knows whether anybody has looked at its verdict."""

    seen = False

    def result(self) -> Result:
        self.seen = True
        return super().result()


class VmFactory:
    """Makes a test's machines, watches their time, and reaps them."""

    def __init__(self, request: pytest.FixtureRequest, backend: str) -> None:
        self._request = request
        self._selection = select("kvm" if backend == "amd-v" else backend)
        self._options = _mark_options(request.node)
        self._runs: list[_Run] = []

    def __call__(
        self,
        kernel: str | os.PathLike[str] | Machine | None = None,
        *,
        timeout: float | None = None,
        start: bool = True,
        **machine: Any,
    ) -> Vm:
        """A machine of the mark's fields with these in their place; running, unless `start` is False.

        `kernel` may be a whole `pyhv.Machine` instead. `timeout` counts from here in seconds. Relative paths are relative
        to the test's file, or to pytest's root directory. A class in `devices` stands for a new instance of it.
        """
        options = self._options | machine
        seed = options.pop("seed", 0)
        limit = timeout if timeout is not None else options.pop("timeout", DEFAULT_TIMEOUT)
        check_timeout(limit)
        for name in ("timeout", "backends"):
            options.pop(name, None)
        description = kernel if isinstance(kernel, Machine) else self._machine(kernel, options)
        run = _Run(
            WatchedVm(description, backend=self._selection, seed=seed), self._directory(), len(self._runs), limit
        )
        self._runs.append(run)
        if start:
            run.vm.start()
        return run.vm

    def _machine(self, kernel: str | os.PathLike[str] | None, options: dict[str, Any]) -> Machine:
        if kernel is not None:
            options = options | {"kernel": kernel}
        if "kernel" not in options:
            raise ConfigError('vm: no kernel: mark the test with @pytest.mark.vm(kernel="..."), or name one here')
        for name in ("kernel", "initrd"):
            if options.get(name) is not None:
                options[name] = self._find(name, options[name])
        if "modules" in options:
            modules = (str(module).partition(" ") for module in options["modules"])
            options["modules"] = [self._find("modules", path) + space + rest for path, space, rest in modules]
        if "devices" in options:
            options["devices"] = [device() if isinstance(device, type) else device for device in options["devices"]]
        return Machine(**options)

    def _find(self, name: str, path: str | os.PathLike[str]) -> str:
        if os.path.isabs(path):
            return os.fspath(path)
        places = [self._request.path.parent / path, self._request.config.rootpath / path]
        for place in places:
            if place.exists():
                return str(place)
        shown = " nor at ".join(dict.fromkeys(map(str, places)))
        raise ConfigError(f"{name}: {os.fspath(path)!r} is not at {shown}")

    def _directory(self) -> Path:
        chosen = self._request.config.getoption("--pyhv-artifacts")
        if not chosen:
            tmp_path: Path = self._request.getfixturevalue("tmp_path")
            return tmp_path
        directory = Path(chosen) / re.sub(r"[^\w.=-]+", "-", self._request.node.nodeid).strip("-")
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def unseen_failure(self) -> str:
        """What a test that saw nothing wrong is to be failed for; "" for nothing.

        A machine whose time ran out, or whose VMM failed without the test having taken its result.
        """
        for run in self._runs:
            if run.timed_out:
                return f"the machine did not end within {run.limit:g} s"
            if run.vm.outcome is Outcome.ERROR and not run.vm.seen:
                return f"the machine ended by a failure of the VMM: {run.vm.result().detail}"
        return ""

    def failure_sections(self, cause: BaseException | None) -> list[tuple[str, str]]:
        """Titles and texts for the report of a failed test: of each machine its console, registers, exits and files."""
        sections = []
        for run in self._runs:
            name = f"machine {run.number + 1}" if len(self._runs) > 1 else "the machine"
            sections += [(f"{name}: {title}", text) for title, text in report.sections(run.vm, run.log_path, cause)]
        return sections

    def close(self) -> None:
        """Stop and reap all machines, the youngest first; a failure to do so fails the test."""
        errors = []
        while self._runs:
            try:
                self._runs.pop().close()
            except PyhvError as error:
                errors.append(error)
        if errors:
            raise errors[0]


class _Run:
    """One machine of a test, with its time limit and its log."""

    def __init__(self, vm: WatchedVm, directory: Path, number: int, limit: float) -> None:
        self.vm = vm
        self.number = number
        self.limit = limit
        self.timed_out = False
        self.log_path = directory / (f"console-{number + 1}.log" if number else "console.log")
        self._log: IO[bytes] = open(self.log_path, "wb", buffering=0)  # noqa: SIM115 - closed with the run
        vm.console.add_sink(self._log.write)
        self._timer = threading.Timer(limit, self._time_is_up)
        self._timer.daemon = True
        self._timer.start()

    def _time_is_up(self) -> None:
        if self.vm.outcome is None:
            self.timed_out = True
            self.vm.end(Outcome.TIMEOUT, f"no end within {self.limit:g} s")

    def close(self) -> None:
        self._timer.cancel()
        self._timer.join()
        try:
            self.vm.close()
        finally:
            self._log.close()


def _mark_options(node: pytest.Item) -> dict[str, Any]:
    """The keyword arguments of a test's `vm` marks, the closest one's first; unknown ones fail the test."""
    options: dict[str, Any] = {}
    for mark in node.iter_markers("vm"):
        values = dict(mark.kwargs)
        if len(mark.args) > 1:
            raise ConfigError(f"mark vm: {len(mark.args)} positional arguments; it takes one, the kernel")
        if mark.args:
            values["kernel"] = mark.args[0]
        for name in values:
            if name not in _FIELDS and name not in _OURS:
                known = ", ".join(sorted(_FIELDS.union(_OURS)))
                pytest.fail(f"mark vm: {name!r} is not one of {known}", pytrace=False)
        options = values | options
    return options
