"""The board's interrupt wiring."""

import pytest

from pyhv.chipset.gsi import GsiRouter
from pyhv.chipset.ioapic import IoApic
from pyhv.chipset.pic import Pic
from pyhv.errors import ConfigError


def board() -> tuple[Pic, IoApic, GsiRouter]:
    pic = Pic()
    ioapic = IoApic(deliver=lambda msi: None)
    return pic, ioapic, GsiRouter(pic=pic, ioapic=ioapic)


@pytest.mark.parametrize("number", range(24))
def test_where_each_number_arrives(number):
    pic, ioapic, router = board()
    router.line(number).set(True)
    gsi = 2 if number == 0 else number
    assert [pin for pin in range(24) if ioapic.line(pin).level] == [gsi]
    irq = 0 if gsi == 2 else gsi
    assert [i for i in range(16) if i != 2 and pic.line(i).level] == ([irq] if irq < 16 else [])


def test_unknown_numbers():
    router = board()[2]
    for number in (-1, 24):
        with pytest.raises(ConfigError, match="0 to 23"):
            router.line(number)


def test_sources_of_one_number_share_its_wire():
    pic, ioapic, router = board()
    first, second = router.line(11), router.line(11)
    first.set(True)
    second.set(True)
    first.set(False)
    assert pic.line(11).level and ioapic.line(11).level
    second.set(False)
    assert not pic.line(11).level and not ioapic.line(11).level


def test_the_timer_has_two_names_and_one_wire():
    pic, ioapic, router = board()
    isa, gsi = router.line(0), router.line(2)
    isa.set(True)
    gsi.set(True)
    isa.set(False)
    assert pic.line(0).level and ioapic.line(2).level


def test_who_listens_to_the_timer():
    pic, ioapic, router = board()
    calls = []
    router.watch_timer(lambda: calls.append(None))
    assert router.timer_unmasked() and not router.timer_deaf()
    router.line(0).pulse()
    assert router.timer_deaf()
    pic.acknowledge()
    assert len(calls) == 1 and not router.timer_deaf()
    pic.master.imr = 0xFF
    assert not router.timer_unmasked()
    ioapic.write(0x00, 4, 0x14)
    ioapic.write(0x10, 4, 0x30)
    assert len(calls) == 2 and router.timer_unmasked() and not router.timer_deaf()
