"""The documents' fenced blocks.

A block is run by its language: `python` as a script (as a pytest file if it defines tests), `console` as a session in a
shell, its output compared. `text`, `asm` and `toml` blocks are not run. A comment before a block says more:
`<!-- file: NAME -->` keeps it under that name for later blocks, `<!-- needs: kvm -->` what it takes. All blocks of a
document run in order in one directory, which has the project's guests/ and tests/ in it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("python", "console")
KEPT = ("text", "asm", "toml", "sh")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REMARK = re.compile(r"<!-- (\w+): (.+?) -->\s*")


@dataclass
class Block:
    """One fenced block; `line` is that of its opening fence."""

    language: str
    text: str
    line: int
    remarks: dict[str, str] = field(default_factory=dict)


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        remarks = {}
        while before.rstrip("\n").endswith("-->"):
            start = before.rindex("<!--")
            remark = REMARK.fullmatch(before[start:])
            if remark is None:
                break
            remarks[remark[1]] = remark[2]
            before = before[:start]
        found.append(Block(match[1], match[2], text[: match.start()].count("\n") + 1, remarks))
    return found


def table(path: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, backquotes and the head taken off."""
    text = path.read_text().split(f"{heading}\n", 1)[1]
    lines = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif lines:
            break
    return lines[2:]
