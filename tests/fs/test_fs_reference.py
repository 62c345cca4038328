"""The reference says what the code has."""

import re
from pathlib import Path

from pyhv.fs import server, tree
from pyhv.fs.descriptors import budget
from pyhv.peripherals.share import Share
from pyhv.record import default_of, field_names

REFERENCE = (Path(__file__).parents[2] / "docs/reference/share.md").read_text()


def rows(heading):
    section = REFERENCE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_fields():
    said = {row[0]: row[1] for row in rows("Fields")}
    assert list(said) == list(field_names(Share))
    assert said.pop("path") == "required"
    assert {name: eval(value, {}) for name, value in said.items()} == {name: default_of(Share, name) for name in said}


def test_caches():
    said = {row[0]: row[1] for row in rows("Caches")}
    seconds = {"one second": 1, "a day": 86400, "not at all": 0}
    assert {name: seconds[value] for name, value in said.items()} == {
        name: policy.seconds for name, policy in server.POLICIES.items()
    }


def test_numbers():
    assert server.MAX_IO == 1 << 20 and "up to 1 MiB" in REFERENCE
    assert tree.MAX_NODES == 1 << 20 and "at most 2^20" in REFERENCE
    assert re.search(r"half of\s+what the process may have open", REFERENCE)
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert budget() <= soft // 2
