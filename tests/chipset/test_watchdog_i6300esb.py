"""Intel's 6300ESB watchdog, driven as Linux does it and against its data sheet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.chipset import i6300esb as esb
from pyhv.chipset.i6300esb import I6300Esb
from pyhv.peripherals.watchdog import Watchdog
from pyhv.testing import DeviceBench

BAR = 0xE200_0000
SECOND = 1_000_000_000


class EsbDriver:
    def __init__(self, **options):
        self.device = I6300Esb(**options)
        self.bench = DeviceBench(self.device)
        bus = self.bench.pci
        [self.devfn] = [f.devfn for f in bus.functions if f.config.get(0, 4) == 0x25AB_8086]
        self.put_config(0x10, 4, BAR)
        self.put_config(0x04, 2, 2)

    def config(self, offset, size):
        return self.bench.pci.read_config(self.devfn, offset, size)

    def put_config(self, offset, size, value):
        self.bench.pci.write_config(self.devfn, offset, size, value)

    def read(self, register, size=4):
        return self.bench.mmio_read(BAR + register, size)

    def write(self, register, value, size=4):
        self.bench.mmio_write(BAR + register, size, value)

    def unlocked(self, register, value, size=4):
        self.write(esb.RELOAD, 0x80, 1)
        self.write(esb.RELOAD, 0x86, 1)
        self.write(register, value, size)

    def ping(self):
        self.unlocked(esb.RELOAD, esb.RELOAD_BIT, 2)

    def arm(self, seconds, config=0x0003):
        """What Linux does: no interrupt, half of the time in each stage, counted in 2^15 / 33 MHz."""
        self.put_config(esb.WDT_CONFIG, 2, config)
        self.unlocked(esb.PRELOAD_1, seconds << 9)
        self.unlocked(esb.PRELOAD_2, seconds << 9)
        self.ping()
        self.put_config(esb.WDT_LOCK, 1, esb.ENABLE)

    @property
    def fired(self):
        return self.bench.control.calls

    def advance(self, seconds):
        self.bench.clock.advance(round(seconds * SECOND))


def test_identity():
    driver = EsbDriver()
    assert driver.config(0x08, 4) >> 8 == 0x08_8000
    driver.put_config(0x10, 4, 0xFFFF_FFFF)
    assert driver.config(0x10, 4) == 0xFFFF_FFF0


def test_fires_after_both_stages_unless_it_is_reloaded():
    driver = EsbDriver(action="reset")
    driver.arm(10)
    for _ in range(5):
        driver.advance(9.9)
        driver.ping()
    assert driver.fired == []
    driver.advance(5.1)  # the second stage has begun: a reload still goes back to the first
    driver.ping()
    driver.advance(9.9)
    assert driver.fired == []
    driver.advance(0.3)
    assert driver.fired == [("reset", "watchdog")]
    assert driver.read(esb.RELOAD, 2) == esb.TIMEOUT


def test_the_timeout_bit_outlives_a_reset_and_a_one_clears_it():
    driver = EsbDriver(action="nothing")
    driver.arm(1)
    driver.advance(2)
    driver.device.reset()
    assert driver.read(esb.RELOAD, 2) & esb.TIMEOUT
    driver.write(esb.RELOAD, esb.TIMEOUT, 2)  # locked
    assert driver.read(esb.RELOAD, 2) & esb.TIMEOUT
    driver.unlocked(esb.RELOAD, esb.TIMEOUT | esb.RELOAD_BIT, 2)
    assert driver.read(esb.RELOAD, 2) == 0
    driver.advance(1000)
    assert driver.read(esb.RELOAD, 2) == 0


def test_registers_take_one_write_after_the_sequence():
    driver = EsbDriver()
    driver.write(esb.PRELOAD_1, 7)
    assert driver.read(esb.PRELOAD_1) == esb.PRELOAD_MASK
    driver.unlocked(esb.PRELOAD_1, 0xFFF0_0007)
    driver.write(esb.PRELOAD_2, 9)
    assert (driver.read(esb.PRELOAD_1), driver.read(esb.PRELOAD_2)) == (7, esb.PRELOAD_MASK)
    driver.write(esb.RELOAD, 0x86, 1)  # half a sequence, in the wrong order
    driver.write(esb.PRELOAD_2, 9)
    assert driver.read(esb.PRELOAD_2) == esb.PRELOAD_MASK


def test_a_locked_watchdog_cannot_be_stopped():
    driver = EsbDriver()
    driver.arm(4)
    driver.put_config(esb.WDT_LOCK, 1, esb.ENABLE | esb.LOCK)
    driver.put_config(esb.WDT_LOCK, 1, 0)
    assert driver.config(esb.WDT_LOCK, 1) == esb.ENABLE | esb.LOCK
    driver.advance(5)
    assert [call[0] for call in driver.fired] == ["panic"]
    driver.device.reset()
    assert driver.config(esb.WDT_LOCK, 1) == 0


def test_disabling_stops_it():
    driver = EsbDriver()
    driver.arm(4)
    driver.put_config(esb.WDT_LOCK, 1, 0)
    driver.advance(1000)
    assert driver.fired == []


def test_the_first_stage_can_interrupt():
    driver = EsbDriver()
    driver.arm(4, config=esb.INT_TYPE_IRQ)
    driver.advance(2.1)
    assert driver.read(esb.INTERRUPT_STATUS) == 1 and any(line.level for line in driver.bench.lines.values())
    driver.write(esb.INTERRUPT_STATUS, 1)
    assert driver.read(esb.INTERRUPT_STATUS) == 0 and not any(line.level for line in driver.bench.lines.values())
    assert driver.fired == []


def test_with_its_output_off_it_only_notes_that_it_expired():
    driver = EsbDriver()
    driver.arm(1, config=0x0003 | esb.OUTPUT_DISABLED)
    driver.advance(2)
    assert driver.fired == [] and driver.read(esb.RELOAD, 2) == esb.TIMEOUT


def test_free_running_it_counts_on():
    driver = EsbDriver(action="reset")
    driver.arm(1)
    driver.put_config(esb.WDT_LOCK, 1, esb.ENABLE | esb.FREE_RUNNING)
    driver.advance(3.2)
    assert driver.fired == [("reset", "watchdog")] * 3


def test_the_fast_clock():
    driver = EsbDriver()
    driver.arm(1000, config=0x0003 | esb.PRESCALE_1MHZ)
    driver.advance(0.9)
    assert driver.fired == []
    driver.advance(0.2)
    assert len(driver.fired) == 1


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 15) | st.sampled_from((0x60, 0x61, 0x64, 0x68)),
            st.sampled_from((1, 2, 4)),
            st.sampled_from((0, 2, 6, 0x80, 0x86, 0x100, 0x200)) | st.integers(0, 0xFFFF_FFFF) | st.none(),
        ),
        max_size=40,
    )
)
def test_nothing_a_guest_does_raises(accesses):
    driver = EsbDriver()
    for config, offset, size, value in accesses:
        value = value if value is None else value & (1 << 8 * size) - 1
        if config and (offset & 3) + size <= 4 and offset >= 0x60:
            found = driver.config(offset, size) if value is None else driver.put_config(offset, size, value)
        else:
            found = driver.read(offset & 15, size) if value is None else driver.write(offset & 15, value, size)
        assert value is not None or 0 <= found < 1 << 8 * size
        driver.advance(0.01)
    driver.device.reset()
    before = len(driver.fired)
    driver.advance(10_000)
    assert len(driver.fired) == before


@pytest.mark.parametrize("action", ["panic", "nothing"])
def test_descriptions_build_the_device(action):
    device = Watchdog(model="i6300esb", action=action).build()
    assert isinstance(device, I6300Esb) and device.action == action
