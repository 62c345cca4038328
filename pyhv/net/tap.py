"""A tap: an interface of the host's kernel whose other end is here (Linux: Documentation/networking/tuntap.rst).

Frames carry a virtio-net header, so that checksums and segments are left to the host's kernel, which checks the headers
itself once more. The interface is made by ioctl; pyroute2 is only imported where an address or a bridge is asked for.
"""

from __future__ import annotations

import errno
import os
from fcntl import ioctl
from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, HostError
from pyhv.log import event
from pyhv.net import ids
from pyhv.net.backend import NetBackend
from pyhv.net.namespace import inside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final

    from pyhv.clock import Clock
    from pyhv.events import HostEvents
    from pyhv.net.backend import Listener

TUN: Final = "/dev/net/tun"
# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
IFF_TAP: Final = 0x0002
IFF_MULTI_QUEUE: Final = 0x0100
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
SIOCSIFMTU: Final = 0x8922
IFF_UP: Final = 1

MOST_PIECES: Final = 1000
"""What writev takes, with the header (IOV_MAX is 1024)."""

_IFREQ_FLAGS = Struct("16sH22x")
_IFREQ_INT = Struct("16si20x")
_INT = Struct("i")
_GONE = (errno.EBADFD, errno.ENODEV)
_GUEST_TO_TUN = (
    (ids.F_GUEST_CSUM, TUN_F_CSUM),
    (ids.F_GUEST_TSO4, TUN_F_TSO4),
    (ids.F_GUEST_TSO6, TUN_F_TSO6),
    (ids.F_GUEST_ECN, TUN_F_TSO_ECN),
    (ids.F_GUEST_USO4, TUN_F_USO4),
    (ids.F_GUEST_USO6, TUN_F_USO6),
)
_TUN_USO = TUN_F_USO4 | TUN_F_USO6
_USO = ids.bits(ids.F_GUEST_USO4, ids.F_GUEST_USO6)


class TapBackend(NetBackend):
    """A tap by its `name` ("" for the kernel's choice) in a `namespace`; made when there is none, and then gone with this.

    `address` ("10.0.0.1/24") and `bridge` are given to it; `mtu` 0 leaves it alone.
    """

    live: ClassVar[bool] = True
    header = True

    def __init__(
        self, *, name: str = "", namespace: str = "", address: str = "", bridge: str = "", mtu: int = 0
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.identity = f"tap {namespace} {name}"
        self._address = address
        self._bridge = bridge
        self._mtu = mtu
        self._fd = -1
        self._watched = False

    def open(self, events: HostEvents, clock: Clock, listener: Listener) -> None:
        self._events = events
        self._listener = listener
        inside(self.namespace, self._make)
        self.identity = f"tap {self.namespace} {self.name}"

    def _make(self) -> None:
        what = f"net: tap {self.name!r}" if self.name else "net: tap"
        try:
            self._fd = _open_tun(what)
            self._claim()
            ioctl(self._fd, TUNSETVNETHDRSZ, _INT.pack(ids.HEADER_SIZE))
            self.offloads = ids.HOST_OFFLOADS | ids.GUEST_OFFLOADS
            if not self._offload(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | _TUN_USO):
                self.offloads &= ~(_USO | ids.bits(ids.F_HOST_USO))
            self._offload(0)
            self._configure()
        except OSError as error:
            self.close()
            raise HostError(f"{what}: {_reason(error)}") from None
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        request = _IFREQ_FLAGS.pack(os.fsencode(self.name or "tap%d"), flags)
        try:
            made = ioctl(self._fd, TUNSETIFF, request)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # One that was made with several queues takes no other kind.
            try:
                made = ioctl(self._fd, TUNSETIFF, _IFREQ_FLAGS.pack(os.fsencode(self.name), flags | IFF_MULTI_QUEUE))
            except OSError as again:
                if again.errno != errno.EINVAL:
                    raise
                raise ConfigError(f"net: name: {self.name!r} is an interface that is no tap") from None
        self.name = os.fsdecode(made[:16].rstrip(b"\0"))

    def _configure(self) -> None:
        import socket

        name = os.fsencode(self.name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            if self._mtu:
                ioctl(control, SIOCSIFMTU, _IFREQ_INT.pack(name, self._mtu))
            if self._address or self._bridge:
                self._route()
            flags = _IFREQ_FLAGS.unpack(ioctl(control, SIOCGIFFLAGS, _IFREQ_FLAGS.pack(name, 0)))[1]
            if not flags & IFF_UP:
                ioctl(control, SIOCSIFFLAGS, _IFREQ_FLAGS.pack(name, flags | IFF_UP))

    def _route(self) -> None:
        from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

        try:
            with IPRoute() as ip:
                index = ip.link_lookup(ifname=self.name)[0]
                if self._bridge:
                    found = ip.link_lookup(ifname=self._bridge)
                    if not found:
                        raise ConfigError(f"net: bridge: {self._bridge!r} is not there")
                    ip.link("set", index=index, master=found[0])
                if self._address:
                    address, _, prefix = self._address.partition("/")
                    ip.addr("replace", index=index, address=address, prefixlen=int(prefix))
        except NetlinkError as error:
            wanted = " and ".join(filter(None, (self._bridge, self._address)))
            raise HostError(f"net: tap {self.name!r}: {wanted} cannot be set: {os.strerror(error.code)}") from None

    def _offload(self, flags: int) -> bool:
        try:
            ioctl(self._fd, TUNSETOFFLOAD, flags)
        except OSError:
            return False
        return True

    def set_guest_offloads(self, offloads: int) -> None:
        flags = 0
        for number, flag in _GUEST_TO_TUN:
            if offloads >> number & 1:
                flags |= flag
        if flags & _TUN_USO != _TUN_USO:
            flags &= ~_TUN_USO  # the kernel takes both or neither
        if self._fd >= 0 and not self._offload(flags):
            event("net_tap_offloads", tap=self.name, refused=flags)

    def resume(self) -> None:
        if not self._watched and self._fd >= 0 and self.link_up:
            self._watched = True
            self._events.add_reader(self._fd, self._listener.frames_waiting)

    def pause(self) -> None:
        if self._watched:
            self._watched = False
            self._events.remove_reader(self._fd)

    def send(self, header: bytes, frame: Sequence[memoryview]) -> None:
        try:
            if len(frame) < MOST_PIECES:
                os.writev(self._fd, [header, *frame])
            else:
                os.writev(self._fd, [header, b"".join(frame)])
        except OSError as error:
            self.dropped += 1  # a full queue, an interface that is down, a frame that the kernel does not like
            if error.errno in _GONE:
                self._lost(error)

    def receive(self, into: Sequence[memoryview]) -> int:
        try:
            return os.readv(self._fd, into)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lost(error)
            return 0

    def _lost(self, error: OSError) -> None:
        """The interface is gone: so is the link."""
        if not self.link_up:
            return
        event("net_tap_gone", tap=self.name, error=str(error.strerror))
        self.pause()
        self.link_up = False
        self._listener.link_changed()

    def close(self) -> None:
        fd, watched = self._fd, self._watched
        if fd >= 0:
            if watched:
                self.pause()
            self._fd = -1
            os.close(fd)


def _open_tun(what: str) -> int:
    try:
        return os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise HostError(
            f"{what}: this process may not open {TUN}; it takes root, or (chmod 666 {TUN}) and an interface made for you"
        ) from None


def _reason(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"{error.strerror}; it takes root (CAP_NET_ADMIN), or an interface made for you: "
            "ip tuntap add NAME mode tap user $USER, ip link set NAME up"
        )
    if error.errno == errno.EBUSY:
        return "somebody else uses it"
    if error.errno == errno.ENOENT:
        return f"this host has no {TUN} (modprobe tun)"
    return str(error.strerror)
