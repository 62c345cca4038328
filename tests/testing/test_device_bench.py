"""The doubles that users drive their own devices with."""

import pytest

import pyhv
from pyhv.testing import DeviceBench, RecordingControl, RecordingLine, guest_memory


class Doorbell(pyhv.MmioDevice):
    """Raises GSI 10 a microsecond after a write, copies what is written to guest memory, sends an MSI for 0xff."""

    address, length, width = 0xD000_0000, 0x10, 4

    def attach(self, platform):
        super().attach(platform)
        self.line = platform.line(10)
        self.writes = []

    def read(self, offset, size):
        return 0x1122_3344 >> (8 * offset)

    def write(self, offset, size, value):
        self.writes.append((offset, size, value))
        self.platform.memory.write(0x1000, value.to_bytes(size, "little"))
        self.platform.clock.call_at(self.platform.clock.now_ns() + 1000, lambda: self.line.set(True))
        if value == 0xFF:
            self.platform.send_msi(pyhv.Msi(0xFEE0_0000, 0x31))


class Register(pyhv.MsrDevice):
    indices = (0xC000_1234,)

    def rdmsr(self, index):
        return 42

    def wrmsr(self, index, value):
        return value < 10


class Latch(pyhv.PioDevice):
    port, length, width = 0x300, 4, 1
    value = 0

    def write(self, offset, size, value):
        self.value |= value << (8 * offset)

    def read(self, offset, size):
        return self.value >> (8 * offset) & 0xFF


def test_mmio_memory_line_and_clock():
    bell = Doorbell()
    bench = DeviceBench(bell)
    bench.mmio_write(0xD000_0004, 4, 0xAABB_CCDD)
    assert bell.writes == [(4, 4, 0xAABB_CCDD)]
    assert bytes(bench.memory.read(0x1000, 4)) == bytes.fromhex("ddccbbaa")
    assert not bench.lines[10].level
    bench.clock.advance(1000)
    assert bench.lines[10].level and bench.lines[10].edges == 1


def test_accesses_are_split_as_on_the_real_bus():
    bell = Doorbell()
    bench = DeviceBench(bell)
    bench.mmio_write(0xD000_0000, 8, 0x0000_0002_0000_0001)
    assert bell.writes == [(0, 4, 1), (4, 4, 2)]
    assert bench.mmio_read(0xD000_0010, 4) == 0xFFFF_FFFF
    assert dict(bench.mmio.unclaimed) == {0xD000_0010: 1}


def test_messages():
    bench = DeviceBench(Doorbell())
    bench.mmio_write(0xD000_0000, 1, 0xFF)
    assert bench.messages == [pyhv.Msi(0xFEE0_0000, 0x31)]


def test_ports():
    bench = DeviceBench(Latch())
    bench.port_out(0x300, 0x0403_0201, 4)
    assert [bench.port_in(0x300 + i) for i in range(4)] == [1, 2, 3, 4]


def test_msrs():
    bench = DeviceBench(Register())
    assert bench.rdmsr(0xC000_1234) == 42 and bench.rdmsr(0x10) is None
    assert bench.wrmsr(0xC000_1234, 9) and not bench.wrmsr(0xC000_1234, 10) and not bench.wrmsr(0x10, 0)


def test_two_sources_share_a_line():
    class Source(pyhv.Device):
        def attach(self, platform):
            self.line = platform.line(5)

    one, other = Source(), Source()
    wire = DeviceBench(one, other).lines
    one.line.set(True)
    other.line.set(True)
    one.line.set(False)
    assert wire[5].changes == [True]
    other.line.set(False)
    assert wire[5].changes == [True, False]


def test_memory_has_the_real_ones_checks():
    memory = guest_memory(0x1000, at=0x2000)
    memory.write(0x2FFF, b"x")
    for address in (0x1FFF, 0x3000):
        with pytest.raises(pyhv.GuestMemoryError):
            memory.read(address, 1)


def test_control_and_line_remember():
    control, wire = RecordingControl(), RecordingLine()
    control.debug_exit(3)
    control.reset("button")
    control.power_off("ACPI")
    control.panic("pvpanic")
    assert control.calls == [("debug_exit", 3), ("reset", "button"), ("power_off", "ACPI"), ("panic", "pvpanic", "")]
    wire.line.pulse()
    assert (wire.changes, wire.edges, wire.level) == ([True, False], 1, False)
