"""Messages by irqfd, and what becomes of them where the host has no more to give."""

import errno
import os
from types import SimpleNamespace

import pytest

from pyhv.errors import CapabilityMissing, KvmError
from pyhv.irq import Msi
from pyhv.notify import DirectMessage, Doorbell, MessageRoutes

FIRST, SECOND = Msi(0xFEE0_0000, 0x41), Msi(0xFEE0_1000, 0x42)


class Backend:
    """The part of a VmHandle that messages need; `routes` is what it was last told."""

    def __init__(self) -> None:
        self.routes: dict[int, Msi] = {}
        self.irqfds: dict[int, int] = {}
        self.sent: list[Msi] = []
        self.refuses = False
        self.limit = 100
        self.table = MessageRoutes(self, 24, 26, self.changed)

    def changed(self) -> None:
        if len(self.table.routes) > self.limit:
            raise KvmError("KVM_SET_GSI_ROUTING", 22)
        self.routes = dict(self.table.routes)

    def add_irqfd(self, fd: int, gsi: int) -> None:
        if self.refuses:
            raise CapabilityMissing("no more irqfds")
        self.irqfds[gsi] = fd

    def remove_irqfd(self, fd: int, gsi: int) -> None:
        assert self.irqfds.pop(gsi) == fd

    def signal_msi(self, message: Msi) -> None:
        self.sent.append(message)

    def signals(self, gsi: int) -> int:
        try:
            return os.eventfd_read(self.irqfds[gsi])
        except BlockingIOError:
            return 0


@pytest.fixture
def backend() -> Backend:
    return Backend()


class NoRoom:
    """Events of a host that watches no more descriptors."""

    def add_reader(self, fd: int, callback: object) -> None:
        raise OSError(errno.ENOSPC, "no space")


def test_a_doorbell_that_nobody_would_hear_is_none() -> None:
    fds: list[int] = []
    handle = SimpleNamespace(
        add_ioeventfd=lambda fd, *_args, **_options: fds.append(fd),
        remove_ioeventfd=lambda fd, *_args, **_options: fds.remove(fd),
    )
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no space"):
        Doorbell(handle, NoRoom(), lambda: None, 0x1000, 4)
    assert fds == [] and os.listdir("/proc/self/fd") == before


def test_a_message_leaves_by_its_descriptor(backend: Backend) -> None:
    message = backend.table.source()
    message.send()
    message.set(FIRST)
    message.send()
    assert (backend.routes, backend.signals(24), backend.sent) == ({24: FIRST}, 1, [])
    message.set(SECOND)
    message.set(None)
    message.send()
    assert (backend.routes, backend.signals(24)) == ({}, 0)
    message.close()
    message.close()
    assert backend.irqfds == {}


def test_numbers_are_used_again(backend: Backend) -> None:
    first, second = backend.table.source(), backend.table.source()
    first.set(FIRST)
    second.set(SECOND)
    first.close()
    third = backend.table.source()
    third.set(FIRST)
    assert backend.routes == {24: FIRST, 25: SECOND}
    for message in (second, third):
        message.close()
    assert backend.irqfds == {} and backend.routes == {}


def test_without_irqfds_the_vmm_sends(backend: Backend) -> None:
    backend.refuses = True
    message = backend.table.source()
    message.set(FIRST)
    message.send()
    assert backend.sent == [FIRST]
    message.set(None)
    message.send()
    assert backend.sent == [FIRST]
    message.close()


def test_without_routes_the_vmm_sends(backend: Backend) -> None:
    backend.limit = 1
    first, second = backend.table.source(), backend.table.source()
    first.set(FIRST)
    second.set(SECOND)
    second.send()
    first.send()
    assert (backend.sent, backend.signals(24), backend.routes) == ([SECOND], 1, {24: FIRST})
    first.set(SECOND)
    assert backend.routes == {24: SECOND}
    for message in (first, second):
        message.close()


def test_where_no_number_is_left_the_vmm_sends(backend: Backend) -> None:
    messages = [backend.table.source() for _ in range(4)]
    for number, message in enumerate(messages):
        message.set(Msi(FIRST.address, number))
        message.send()
    assert list(backend.routes) == [24, 25, 26] and backend.sent == [Msi(FIRST.address, 3)]
    messages[1].close()
    again = backend.table.source()
    again.set(SECOND)
    assert backend.routes[25] == SECOND
    for message in (again, *messages):
        message.close()
    assert backend.routes == {}


def test_a_direct_message() -> None:
    sent: list[Msi] = []
    message = DirectMessage(sent.append)
    message.send()
    message.set(FIRST)
    message.send()
    message.close()
    message.send()
    assert sent == [FIRST]
