"""The reference of the small devices names what they have: fields with their defaults, methods, ports."""

import pytest
from documents import ROOT, table

from pyhv.chipset.wdat import WATCHDOG_PORT, WATCHDOG_SIZE
from pyhv.peripherals import class_of
from pyhv.record import default_of, field_names
from pyhv.virtio.balloon import VirtioBalloon
from pyhv.virtio.balloon_stats import NAMES
from pyhv.virtio.console_port import VirtioPort

PAGE = ROOT / "docs" / "reference" / "virtio-devices.md"


@pytest.mark.parametrize("kind", ["console", "entropy", "balloon", "vsock", "watchdog"])
def test_fields(kind):
    rows = {row[0]: row[1] for row in table(PAGE, f"## {kind.capitalize()}")}
    cls = class_of(kind)
    assert list(rows) == list(field_names(cls))
    for name, said in rows.items():
        if said == "required":
            assert repr(default_of(cls, name)) == "<required>"
        else:
            assert eval(said, {}) == default_of(cls, name), name


def test_members_of_a_port():
    rows = [row[0] for row in table(PAGE, "### Ports")]
    assert rows and all(hasattr(VirtioPort("x"), name) for name in rows)


def test_members_of_a_balloon():
    rows = [row[0] for row in table(PAGE, "### The balloon's host side")]
    attributes = vars(VirtioBalloon).keys() | vars(VirtioBalloon()).keys()
    assert rows and attributes >= set(rows)
    assert all(f"`{name}`" in PAGE.read_text() for name in NAMES[:8])


def test_ports_of_the_watchdog():
    assert f"ports {WATCHDOG_PORT:#x} to {WATCHDOG_PORT + WATCHDOG_SIZE - 1:#x}" in PAGE.read_text()
