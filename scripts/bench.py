#!/usr/bin/env python3
"""Measures pyhv beside its peers and prints a table of ratios.

    scripts/bench.py [--rounds N] [--only TEXT] [--json] [--check]

Every row's sides are measured in turns in the same run; a number is the median. Noise hits both sides, so compare ratios.
`--only` picks the groups of rows whose name contains TEXT; with `--check` the exit status is 1 when a target is missed.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator

from bench import block, devices, fs, kvm, net, sim, start
from bench.measure import NotMeasured, Row

GROUPS: dict[str, tuple[Callable[[int], Iterator[Row]], int]] = {
    "process": (start.whole_process, 21),
    "lives": (kvm.lives, 7),
    "exits": (kvm.exits, 5),
    "import": (start.imports, 11),
    "memory": (start.memory, 3),
    "integer": (sim.integer, 5),
    "sim-lives": (sim.lives, 5),
    "linux": (sim.linux, 3),
    "block": (block.reads, 5),
    "net": (net.tap, 5),
    "shares": (fs.requests, 5),
    "command": (devices.commands, 3),
    "rig": (devices.in_rig, 2),
}
"""Each group with how often it is measured."""


def shown(row: Row) -> str:
    ratio = "not measured" if row.ratio is None else f"{row.ratio:.2f} {row.unit}"
    verdict = {True: "ok", False: "MISSED", None: ""}[row.met]
    line = f"{row.name:<62} {row.pyhv:>10} {row.peer:>10} {ratio:>13}  {row.target:<9} {verdict}"
    return f"{line.rstrip()}{f'  ({row.note})' if row.note else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="how often each row is measured")
    parser.add_argument("--only", default="", help=f"groups of rows: {', '.join(GROUPS)}")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    options = parser.parse_args()
    rows: list[Row] = []
    if not options.json:
        print(f"{'':<62} {'pyhv':>10} {'peer':>10} {'ratio':>13}  target")
    for name, (group, rounds) in GROUPS.items():
        if options.only not in name:
            continue
        try:
            for row in group(options.rounds or rounds):
                rows.append(row)
                if not options.json:
                    print(shown(row), flush=True)
        except NotMeasured as error:
            rows.append(Row(name, "", "", None, note=str(error)))
            if not options.json:
                print(shown(rows[-1]), flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) | {"met": row.met} for row in rows], indent=1))
    return 1 if options.check and any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
