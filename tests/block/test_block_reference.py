"""The reference's tables name what there is, with its defaults."""

from pathlib import Path

import pytest

from pyhv.block.image import Image
from pyhv.block.open import MAX_CHAIN
from pyhv.peripherals.disk import Disk
from pyhv.peripherals.pmem import Pmem
from pyhv.record import default_of, field_names

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "block.md").read_text()


def rows(heading, first):
    """The table below a heading that begins with a column of this name."""
    table = PAGE.split(f"{heading}\n", 1)[1].split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize(("cls", "heading"), [(Disk, "## Disk"), (Pmem, "## Pmem")])
def test_fields(cls, heading):
    found = {row[0]: row[1] for row in rows(heading, "field")}
    assert list(found) == list(field_names(cls))
    for name, said in found.items():
        if said == "required":
            assert repr(default_of(cls, name)) == "<required>"
        else:
            assert eval(said, {}) == default_of(cls, name), name


def test_members_of_an_image():
    found = {row[0] for row in rows("## A disk of your own", "member")}
    assert found == {name for name in vars(Image) if not name.startswith("_")} | {"size"}


def test_numbers():
    assert f"{MAX_CHAIN} may stand on each other" in PAGE
