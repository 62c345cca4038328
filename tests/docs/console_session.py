"""A shell session out of a document: its commands are run, what they print is compared."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

MARK = "-- end of command --"
VARIES = [
    (re.compile(r"\d+(\.\d+)? (ms|s)\b"), r"N \2"),
    (re.compile(r"\d+ (exits|instructions)\b"), r"N \1"),
    (re.compile(r"\bin \d+(\.\d+)?s\b"), "in N s"),
]
"""Times and counts differ from run to run, or from version to version."""


@dataclass
class Command:
    line: str
    expected: str


def parse(text: str) -> list[Command]:
    commands: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:], ""))
        elif line.startswith("> "):
            commands[-1].line += "\n" + line[2:]
        else:
            commands[-1].expected += line + "\n"
    return commands


def run(commands: list[Command], directory: Path, environment: dict[str, str]) -> list[str]:
    """What each command printed, on standard output and standard error together."""
    script = "".join(f"{c.line}\n__status=$?; printf '%s\\n' '{MARK}'; (exit $__status)\n" for c in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.stdout.split(f"{MARK}\n")[: len(commands)]


def normal(text: str) -> str:
    for pattern, replacement in VARIES:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def alike(expected: str, printed: str) -> bool:
    """Whether they are the same but for what varies; `...` in a document stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in normal(expected).split("..."))
    return re.fullmatch(pattern, normal(printed), re.DOTALL) is not None
