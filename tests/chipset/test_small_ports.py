"""pvpanic, the Bochs console, the POST ports and the reset registers."""

import pytest
from chipset_fakes import FakeControl, Spaces
from hypothesis import given
from hypothesis import strategies as st

from pyhv.chipset.bochs_console import BochsConsole
from pyhv.chipset.post import PostPorts
from pyhv.chipset.pvpanic import Pvpanic
from pyhv.chipset.reset_control import ResetControl


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


def test_pvpanic_shows_its_events(control):
    assert Spaces(Pvpanic(control=control)).inp(0x505) == 7


@pytest.mark.parametrize(
    ("event", "calls"),
    [
        (0x01, [("panic", "pvpanic")]),
        (0x03, [("panic", "pvpanic")]),
        (0x02, []),
        (0x04, [("power_off", "pvpanic")]),
        (0x06, []),
        (0xF8, []),
        (0x00, []),
    ],
)
def test_pvpanic_events(control, event, calls):
    device = Pvpanic(control=control)
    Spaces(device).out(0x505, event)
    assert control.calls == calls
    assert device.crash_loaded == (event & 3 == 2)
    device.reset()
    assert not device.crash_loaded


def test_bochs_console_prints_and_identifies_itself():
    out = bytearray()
    spaces = Spaces(BochsConsole(output=out.extend))
    for byte in b"bochs\xff":
        spaces.out(0xE9, byte)
    spaces.out(0xE9, 0x4241, size=2)
    assert out == b"bochs\xffA"
    assert spaces.inp(0xE9) == 0xE9


def test_post_codes_are_kept_and_delays_swallowed():
    device = PostPorts()
    spaces = Spaces(device)
    spaces.out(0x80, 0x55)
    assert device.code == spaces.inp(0x80) == 0x55
    spaces.out(0xED, 0)
    assert not spaces.ports.unclaimed
    device.reset()
    assert device.code == 0


@pytest.mark.parametrize(("value", "resets"), [(0x02, 0), (0x06, 1), (0x0E, 1), (0x04, 1), (0x0A, 0), (0x00, 0)])
def test_reset_control_register(control, value, resets):
    device = ResetControl(control=control)
    device.write_control(value)
    assert control.calls == [("reset", "reset control register")] * resets
    assert device.read_control() == value & 0x0A


def test_port_92_resets_on_the_rising_bit_and_keeps_a20(control):
    device = ResetControl(control=control)
    spaces = Spaces(device)
    assert spaces.inp(0x92) & 2
    spaces.out(0x92, 0)
    assert spaces.inp(0x92) == 0
    spaces.out(0x92, 1)
    spaces.out(0x92, 3)
    assert control.calls == [("reset", "system port 0x92")]
    device.reset()
    assert spaces.inp(0x92) == 2


PORTS = (0x505, 0xE9, 0x80, 0xED, 0x92)


@given(
    st.lists(
        st.tuples(st.sampled_from(PORTS), st.sampled_from((1, 2, 4)), st.none() | st.integers(0, 0xFFFF_FFFF)),
        max_size=40,
    )
)
def test_nothing_a_guest_does_raises(accesses):
    control = FakeControl()
    out = bytearray()
    spaces = Spaces(
        Pvpanic(control=control), BochsConsole(output=out.extend), PostPorts(), ResetControl(control=control)
    )
    for port, size, value in accesses:
        if value is None:
            assert 0 <= spaces.inp(port, size) < 1 << (8 * size)
        else:
            spaces.out(port, value & ((1 << (8 * size)) - 1), size)
    assert all(0 <= spaces.inp(port) <= 0xFF for port in PORTS)
