"""User-mode networking: the guest's connections become sockets of this process, by libslirp. It takes no privileges.

The guest is 10.0.2.15 by DHCP; 10.0.2.2 is its gateway and leads to the host, 10.0.2.3 its name server, which asks
the host's. libslirp keeps the time of the host's network: it talks to the world, not to the machine.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, HostError
from pyhv.log import event
from pyhv.net.backend import NetBackend, scatter
from pyhv.net.forward import parse_ipv4
from pyhv.net.fragments import Reassembler, is_fragment
from pyhv.record import record, replace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, ClassVar, Final

    from pyhv.clock import Clock
    from pyhv.events import HostEvents
    from pyhv.net.backend import Listener
    from pyhv.net.forward import Forward

LIBRARY: Final = "libslirp.so.0"
QUEUE_BYTES: Final = 4 << 20
"""Frames to the guest that wait; more are dropped."""
QUEUE_FULL: Final = 1 << 20
"""With this many, the host's sockets are not read until the guest has taken some."""
MOST_SOCKETS: Final = 512
"""Connections that a guest can have, where the process may open twice as many descriptors."""
PORT_TRIES: Final = 16
DEFAULT_MTU: Final = 1500

_PREFIX6 = b"\xfe\xc0"

_lock = allocate_lock()
"""libslirp keeps process-wide state."""


@record(frozen=True)
class UserNetwork:
    """Addresses of the network that the guest sees."""

    network: str = "10.0.2.0"
    mask: str = "255.255.255.0"
    host: str = "10.0.2.2"
    nameserver: str = "10.0.2.3"
    guest: str = "10.0.2.15"


@record(frozen=True)
class UserCounters:
    """What libslirp did not do: see `struct pyhv_slirp_counters`."""

    dropped: int
    refused: int
    guest_errors: int
    queued_bytes: int
    sockets: int


class UserBackend(NetBackend):
    """libslirp. With `restrict` the guest reaches nothing but what is forwarded to it; without `host_loopback` not the host's
    own services at 127.0.0.1 behind the gateway's address. `forwards` says, once open, which ports were taken.
    """

    live: ClassVar[bool] = True
    identity = "user"

    def __init__(
        self,
        *,
        forwards: Sequence[Forward] = (),
        restrict: bool = False,
        host_loopback: bool = True,
        ipv6: bool = False,
        mtu: int = 0,
        hostname: str = "pyhv",
        network: UserNetwork | None = None,
    ) -> None:
        self.forwards = tuple(forwards)
        self.network = UserNetwork() if network is None else network
        self._restrict = restrict
        self._host_loopback = host_loopback
        self._ipv6 = ipv6
        self._mtu = mtu or DEFAULT_MTU
        self._hostname = hostname
        self._slirp: Any = None
        self._watched = False
        self._wanted = False

    def open(self, events: HostEvents, clock: Clock, listener: Listener) -> None:
        self._events = events
        self._listener = listener
        self._fragments = Reassembler(clock)
        self._ffi, self._lib = _load()
        self._length = self._ffi.new("size_t *")
        self._counters = self._ffi.new("struct pyhv_slirp_counters *")
        with _lock:
            self._slirp = self._make()
        self._fd = self._lib.pyhv_slirp_fd(self._slirp)
        try:
            self.forwards = tuple(self._forward(forward) for forward in self.forwards)
        except BaseException:
            self.close()
            raise

    def _make(self) -> Any:
        network = self.network
        fields: dict[str, Any] = {
            "restricted": self._restrict,
            "host_loopback": self._host_loopback,
            "network": parse_ipv4(network.network),
            "mask": parse_ipv4(network.mask),
            "host": parse_ipv4(network.host),
            "nameserver": parse_ipv4(network.nameserver),
            "dhcp_start": parse_ipv4(network.guest),
            "mtu": self._mtu,
            "queue_bytes": QUEUE_BYTES,
            "sockets": min(MOST_SOCKETS, os.sysconf("SC_OPEN_MAX") // 2),
            "hostname": (name := self._ffi.new("char[]", self._hostname.encode())),
        }
        if self._ipv6:
            fields |= {
                "prefix6": list(_PREFIX6 + bytes(14)),
                "host6": list(_PREFIX6 + bytes(13) + b"\x02"),
                "nameserver6": list(_PREFIX6 + bytes(13) + b"\x03"),
                "prefix6_length": 64,
            }
        error = self._ffi.new("int *")
        slirp = self._lib.pyhv_slirp_new(self._ffi.new("struct pyhv_slirp_config *", fields), error)
        del name
        if not slirp:
            raise HostError(f"net: user: {os.strerror(error[0])}")
        return slirp

    def _forward(self, forward: Forward) -> Forward:
        """Bind one forward; it comes back with the port that it got."""
        guest = parse_ipv4(self.network.guest) if forward.guest is None else forward.guest
        udp = forward.protocol == "udp"
        failed = 0
        for _ in range(1 if forward.host_port else PORT_TRIES):
            taken = replace(forward, host_port=forward.host_port or _free_port(udp, forward.host))
            with _lock:
                failed = -self._lib.pyhv_slirp_forward(
                    self._slirp, udp, taken.host, taken.host_port, guest, taken.guest_port
                )
            if not failed:
                event("net_forward", host=taken.shown, guest_port=taken.guest_port)
                return taken
        raise ConfigError(f"net: forward: {forward.shown} cannot be taken: {os.strerror(failed)}")

    def counters(self) -> UserCounters:
        """What was dropped and refused so far."""
        counters = self._count()
        return UserCounters(
            counters.dropped, counters.refused, counters.guest_errors, counters.queued_bytes, counters.sockets
        )

    def _count(self) -> Any:
        self._lib.pyhv_slirp_count(self._slirp, self._counters)
        return self._counters

    def resume(self) -> None:
        self._wanted = True
        self._watch()

    def pause(self) -> None:
        self._wanted = False
        self._watch()

    def _watch(self) -> None:
        """Look at sockets and timers while the guest takes frames, and when it does not, until many wait for it."""
        wanted = self._slirp is not None and (self._wanted or (self._watched and self._count().queued_bytes < QUEUE_FULL))
        if wanted and not self._watched:
            self._watched = True
            self._events.add_reader(self._fd, self._work)
        elif not wanted and self._watched:
            self._watched = False
            self._events.remove_reader(self._fd)

    def _work(self) -> None:
        with _lock:
            failed = self._lib.pyhv_slirp_work(self._slirp)
        if failed:
            raise HostError(f"net: user: {os.strerror(-failed)}")
        if not self._wanted:
            self._watch()
        elif self._lib.pyhv_slirp_frame(self._slirp, self._length):
            self._listener.frames_waiting()

    def send(self, header: bytes, frame: Sequence[memoryview]) -> None:
        data = b"".join(frame)
        if is_fragment(data):
            whole = self._fragments.add(data)
            if whole is None:
                return
            data = whole
        with _lock:
            self._lib.pyhv_slirp_input(self._slirp, data, len(data))

    def flush(self) -> None:
        if self._slirp is not None:
            self._work()

    def receive(self, into: Sequence[memoryview]) -> int:
        frame = self._lib.pyhv_slirp_frame(self._slirp, self._length)
        if not frame:
            return 0
        length: int = self._length[0]
        scatter(memoryview(self._ffi.buffer(frame, length)), into)
        self._lib.pyhv_slirp_drop(self._slirp)
        return length

    def close(self) -> None:
        slirp, self._slirp = self._slirp, None
        if slirp is not None:
            self._watch()
            with _lock:
                self._lib.pyhv_slirp_free(slirp)


def _load() -> tuple[Any, Any]:
    """The native part with the library behind it. Raises HostError that says what to install."""
    try:
        from pyhv.net._slirp import ffi, lib  # type: ignore[import-not-found]
    except ImportError as error:
        raise HostError(f"net: user: pyhv.net._slirp is not built ({error}); mend it with: pip install -e .") from error
    message = ffi.new("char[256]")
    with _lock:
        failed = lib.pyhv_slirp_load(LIBRARY.encode(), message, 256)
    if failed:
        reason = ffi.string(message).decode(errors="replace")
        raise HostError(
            f"net: user: {LIBRARY} cannot be loaded ({reason}); Debian has it as: apt-get install libslirp0"
        )
    return ffi, lib


def _free_port(udp: bool, host: int) -> int:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        try:
            probe.bind((socket.inet_ntoa(host.to_bytes(4, "big")), 0))
        except OSError as error:
            raise ConfigError(f"net: forward: no port can be taken: {error.strerror}") from None
        return int(probe.getsockname()[1])
