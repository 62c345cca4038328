"""The debug exit port."""

import pytest
from chipset_fakes import FakeControl, Spaces

from pyhv.chipset.debug_exit import DebugExit
from pyhv.errors import ConfigError


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.mark.parametrize(("size", "value"), [(1, 0x00), (1, 0xFF), (2, 0xBEEF), (4, 0xDEAD_BEEF)])
def test_a_write_of_any_width_ends_the_guest_with_its_value(control, size, value):
    Spaces(DebugExit(control=control)).out(0xF4, value, size)
    assert control.calls == [("debug_exit", value)]


def test_reading_gives_zero_and_does_nothing(control):
    assert Spaces(DebugExit(control=control)).inp(0xF4, 4) == 0
    assert not control.calls


@pytest.mark.parametrize("size", [1, 2, 4])
def test_port_and_size_are_configurable(control, size):
    spaces = Spaces(DebugExit(control=control, port=0x501, size=size))
    spaces.out(0x501, 3, size)
    spaces.out(0x501 + size, 9)
    assert control.calls == [("debug_exit", 3)]


@pytest.mark.parametrize(
    "options", [{"size": 3}, {"size": 0}, {"port": -1}, {"port": 0xFFFE}, {"port": 0x10000, "size": 1}]
)
def test_nonsense_is_refused(control, options):
    with pytest.raises(ConfigError, match=r"debug exit (size|port)"):
        DebugExit(control=control, **options)
