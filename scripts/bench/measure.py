"""Measuring: interleaved repetitions, medians, and the rows of the table."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
PEERS = Path(__file__).resolve().parent / "peers"
PYHV = ROOT / ".venv" / "bin" / "pyhv"
PYTHON = ROOT / ".venv" / "bin" / "python"
GUESTS = ROOT / "guests" / "build"


class NotMeasured(Exception):
    """What a row needs is missing here; the text says what."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `ratio` is what the target bounds: pyhv's number by the peer's, or pyhv's own number where there is no peer.
    """

    name: str
    pyhv: str
    peer: str
    ratio: float | None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where nothing was measured or nothing is demanded."""
        if self.ratio is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}"
        return f">= {self.at_least:g} {self.unit}" if self.at_least is not None else ""


def interleaved(tasks: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """The median of each task's results over `rounds` rounds, each task once a round so that noise hits all alike."""
    results: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, found in zip(tasks, results, strict=True):
            found.append(task())
    return [statistics.median(found) for found in results]


def wall(command: Sequence[str | Path], statuses: Sequence[int] = (0,)) -> float:
    """Seconds from the start of a command to its end. Raises NotMeasured when it fails."""
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True)
    took = time.perf_counter() - began
    if done.returncode not in statuses:
        text = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise NotMeasured(f"{Path(command[0]).name} ended with {done.returncode}: {text[-1] if text else 'no message'}")
    return took


def output_number(command: Sequence[str | Path]) -> float:
    """The number that a command prints. Raises NotMeasured when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        text = (done.stderr or done.stdout).strip().splitlines()
        raise NotMeasured(f"{Path(command[0]).name}: {text[-1] if text else 'failed'}")
    return float(done.stdout.split()[-1])


def compiled(name: str) -> Path:
    """A peer in C, built into build/bench when it is older than its source. Raises NotMeasured without a compiler."""
    source, program = PEERS / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in PEERS.iterdir())
    if not program.exists() or program.stat().st_mtime < newest:
        if shutil.which("gcc") is None:
            raise NotMeasured("there is no gcc to build the peer with")
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)
    return program


def guest(name: str) -> Path:
    """A guest of this project. Raises NotMeasured when it is not built."""
    path = GUESTS / name
    if not path.exists():
        raise NotMeasured(f"{path.relative_to(ROOT)} is not built (make guests)")
    return path


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us"


def rate(per_second: float) -> str:
    return f"{per_second:.0f}/s"
