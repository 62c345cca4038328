"""The watchdog of the WDAT table, driven through the table alone, as an operating system does."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.chipset import wdat
from pyhv.chipset.wdat import WATCHDOG_PORT, WdatWatchdog
from pyhv.errors import ConfigError
from pyhv.peripherals.watchdog import Watchdog
from pyhv.testing import DeviceBench

SECOND = 1_000_000_000


class WdatDriver:
    """Runs the actions of the table that a device gave to ACPI."""

    def __init__(self, **options):
        self.device = WdatWatchdog(**options)
        self.bench = DeviceBench(self.device)
        [(signature, revision, body)] = self.bench.tables
        assert (signature, revision) == (b"WDAT", 1)
        fields = struct.unpack_from("<IHBBB3xIIIB3xI", body)
        length, *pci, self.period_ms, self.max_count, self.min_count, self.flags, count = fields
        assert length == 32 and pci == [0xFF] * 4
        self.actions = {}
        assert len(body) == 32 + 24 * count
        for at in range(32, len(body), 24):
            action, *entry = struct.unpack_from("<BBxxBBBBQII", body, at)
            assert action not in self.actions
            self.actions[action] = entry

    def run(self, action, parameter=0):
        instruction, space, width, offset, access, port, value, mask = self.actions[action]
        assert (space, width, offset, access) == (1, 32, 0, 3)
        kind = instruction & ~wdat.PRESERVE
        if kind == wdat.READ_VALUE:
            return self.bench.port_in(port, 4) & mask == value
        if kind == wdat.READ_COUNTDOWN:
            return self.bench.port_in(port, 4) & mask
        written = (value if kind == wdat.WRITE_VALUE else parameter) & mask
        if instruction & wdat.PRESERVE:
            written |= self.bench.port_in(port, 4) & ~mask
        return self.bench.port_out(port, written, 4)

    @property
    def fired(self):
        return self.bench.control.calls

    def advance(self, seconds):
        self.bench.clock.advance(round(seconds * SECOND))


def test_table_says_what_an_operating_system_needs():
    driver = WdatDriver()
    required = {wdat.RESET, wdat.SET_COUNTDOWN, wdat.QUERY_RUNNING, wdat.SET_RUNNING}
    required |= {wdat.QUERY_STOPPED, wdat.SET_STOPPED, wdat.QUERY_STATUS, wdat.SET_STATUS}
    assert required <= set(driver.actions)
    assert driver.flags == wdat.ENABLED | wdat.STOPPED_IN_SLEEP
    assert driver.period_ms >= 1 and driver.min_count < driver.max_count
    assert driver.max_count * driver.period_ms >= 5 * 60 * 1000


def test_off_until_started():
    driver = WdatDriver()
    assert driver.run(wdat.QUERY_STOPPED) and not driver.run(wdat.QUERY_RUNNING)
    driver.advance(100_000)
    assert driver.fired == []


def test_expires_only_without_a_sign_of_life():
    driver = WdatDriver(action="reset")
    driver.run(wdat.SET_COUNTDOWN, 50)
    driver.run(wdat.SET_RUNNING)
    assert driver.run(wdat.QUERY_RUNNING) and not driver.run(wdat.QUERY_STOPPED)
    for _ in range(20):
        driver.advance(4.9)
        assert driver.run(wdat.QUERY_CURRENT) == 1
        driver.run(wdat.RESET)
        assert driver.run(wdat.QUERY_CURRENT) == 50
    assert driver.fired == [] and not driver.run(wdat.QUERY_STATUS)
    driver.advance(5)
    assert driver.fired == [("reset", "watchdog")]
    assert driver.run(wdat.QUERY_STATUS) and driver.run(wdat.QUERY_STOPPED)
    driver.advance(1000)
    assert len(driver.fired) == 1


def test_stopping_and_starting_again():
    driver = WdatDriver()
    driver.run(wdat.SET_COUNTDOWN, 10)
    driver.run(wdat.SET_RUNNING)
    driver.advance(0.9)
    driver.run(wdat.SET_STOPPED)
    driver.advance(10)
    driver.run(wdat.RESET)  # no start
    driver.advance(10)
    assert driver.fired == []
    driver.run(wdat.SET_RUNNING)
    driver.advance(0.9)
    driver.run(wdat.SET_RUNNING)  # runs already: no reload
    driver.advance(0.1)
    assert [call[0] for call in driver.fired] == ["panic"]


def test_a_new_countdown_counts_from_the_next_reload():
    driver = WdatDriver()
    driver.run(wdat.SET_RUNNING)
    assert driver.run(wdat.QUERY_COUNTDOWN) == driver.run(wdat.QUERY_CURRENT) == wdat.DEFAULT_COUNT
    driver.run(wdat.SET_COUNTDOWN, 20)
    assert driver.run(wdat.QUERY_COUNTDOWN) == 20
    assert driver.run(wdat.QUERY_CURRENT) == wdat.DEFAULT_COUNT
    driver.run(wdat.RESET)
    assert driver.run(wdat.QUERY_CURRENT) == 20


@pytest.mark.parametrize(("written", "count"), [(0, 1), (0xFFFF, 0xFFFF), (0xFFFF_FFFF, 0xFFFF)])
def test_countdowns_are_kept_in_their_range(written, count):
    driver = WdatDriver()
    driver.bench.port_out(WATCHDOG_PORT + wdat.COUNTDOWN, written, 4)
    assert driver.run(wdat.QUERY_COUNTDOWN) == count


def test_that_it_expired_outlives_a_reset():
    driver = WdatDriver(action="nothing")
    driver.run(wdat.SET_RUNNING)
    driver.advance(30)
    driver.device.reset()
    assert driver.run(wdat.QUERY_STATUS) and driver.run(wdat.QUERY_COUNTDOWN) == wdat.DEFAULT_COUNT
    driver.run(wdat.SET_STATUS)
    assert not driver.run(wdat.QUERY_STATUS)


def test_a_reset_stops_it():
    driver = WdatDriver()
    driver.run(wdat.SET_RUNNING)
    driver.device.reset()
    driver.advance(100)
    assert driver.fired == []


@pytest.mark.parametrize(
    ("action", "calls"),
    [
        ("panic", [("panic", "watchdog", "wdat: the guest gave no sign of life in time")]),
        ("reset", [("reset", "watchdog")]),
        ("poweroff", [("power_off", "watchdog")]),
        ("nothing", []),
    ],
)
def test_actions(action, calls):
    driver = WdatDriver(action=action)
    driver.run(wdat.SET_RUNNING)
    driver.advance(30)
    assert driver.fired == calls and driver.run(wdat.QUERY_STATUS)


def test_narrow_writes_change_their_bytes_only():
    driver = WdatDriver()
    driver.bench.port_out(WATCHDOG_PORT + wdat.COUNTDOWN + 1, 0x12, 1)
    assert driver.run(wdat.QUERY_COUNTDOWN) == 0x1200 | wdat.DEFAULT_COUNT & 0xFF
    driver.bench.port_out(WATCHDOG_PORT + wdat.CONTROL + 1, 0xFF, 1)
    assert driver.run(wdat.QUERY_STOPPED)
    driver.bench.port_out(WATCHDOG_PORT + wdat.CONTROL, 1, 1)
    driver.bench.port_out(WATCHDOG_PORT + wdat.CONTROL + 2, 0, 2)
    assert driver.run(wdat.QUERY_RUNNING)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from((1, 2, 4)), st.none() | st.integers(0, 0xFFFF_FFFF)), max_size=40
    )
)
def test_nothing_a_guest_does_raises(accesses):
    driver = WdatDriver()
    for offset, size, value in accesses:
        if value is None:
            assert 0 <= driver.bench.port_in(WATCHDOG_PORT + offset, size) < 1 << 8 * size
        else:
            driver.bench.port_out(WATCHDOG_PORT + offset, value & (1 << 8 * size) - 1, size)
            driver.advance(0.1)
    driver.device.reset()
    assert driver.bench.port_in(WATCHDOG_PORT + wdat.CONTROL, 4) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "x"}, "watchdog: model: 'x' is not one of wdat, i6300esb"),
        ({"action": "x"}, "watchdog: action: 'x' is not one of panic, reset, poweroff, nothing"),
        ({"action": 3}, "watchdog: action: 3 is not text"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Watchdog(**fields)
    assert str(error.value) == message


def test_descriptions_build_the_device():
    device = Watchdog(action="reset").build()
    assert isinstance(device, WdatWatchdog) and device.action == "reset"
