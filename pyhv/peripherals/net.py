"""A network interface, as a machine's description says it."""

from __future__ import annotations

from os import fsencode

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import default_of, field_names, record

if TYPE_CHECKING:
    from os import PathLike
    from typing import Any, ClassVar

    from pyhv.device import Device
    from pyhv.net.backend import NetBackend
    from pyhv.net.peer import Peer

MODES = ("user", "tap", "socket", "peer", "none")
MIN_MTU, MAX_MTU = 68, 65521
"""Bounds of virtio 1.2 (5.1.4.1) and of libslirp."""
MAX_NAME = 15
"""Bytes of an interface's name (IFNAMSIZ)."""

_OF_MODE = {
    "forward": "user",
    "restrict": "user",
    "host": "user",
    "ipv6": "user",
    "name": "tap",
    "namespace": "tap",
    "address": "tap",
    "bridge": "tap",
    "path": "socket",
    "listen": "socket",
    "object": "peer",
}
"""Fields that mean something in one mode only."""


@record(frozen=True)
class Net:
    """A network interface, and what is at the other end of its cable. Raises ConfigError.

    - `mode`: "user" (the guest's connections become this process's own, by libslirp), "tap" (an interface of the host's),
      "socket" (a Unix socket that carries frames, to another machine or to passt), "peer" (a Python object), or "none".
    - `mac`: the guest's address, "02:00:00:00:00:01"; made of what it is connected to where it is not given. `mtu`: what the
      guest is told. `link`: whether the cable is plugged in at first. `pcap`: a file that gets every frame.
    - user: `forward`: ports of the host's that lead to the guest, "tcp:2222:22", "udp:0.0.0.0:5353:53", on the loopback
      interface unless they name an address; `restrict`: nothing else gets out or in; `host`: the gateway's address leads to
      what listens on the host's own loopback interface; `ipv6`.
    - tap: `name` of the interface, made when it is not there; `namespace`: a network namespace by its name or path;
      `address`: "10.0.0.1/24", of the host's side; `bridge`: a bridge that it joins.
    - socket: `path`, and `listen` for the side that makes it.
    - peer: `object`, a `pyhv.net.Peer`.
    """

    kind: ClassVar[str] = "net"
    main: ClassVar[str] = "mode"
    unique: ClassVar[tuple[str, ...]] = ("pcap",)
    aliases: ClassVar[dict[str, str]] = {"netns": "namespace", "ifname": "name"}

    mode: str = "user"
    mac: str = ""
    mtu: int = 0
    link: bool = True
    pcap: str = ""
    transport: str = "pci"
    forward: tuple[str, ...] = ()
    restrict: bool = False
    host: bool = True
    ipv6: bool = False
    name: str = ""
    namespace: str = ""
    address: str = ""
    bridge: str = ""
    path: str = ""
    listen: bool = False
    object: Peer | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mode not in MODES:
            raise ConfigError(f"net: mode: {self.mode!r} is not one of {', '.join(MODES)}")
        for name in field_names(self):
            mode = _OF_MODE.get(name, self.mode)
            value = getattr(self, name)
            if mode != self.mode and value != default_of(Net, name):
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                raise ConfigError(f"net: {name}: {shown!r} is for mode {mode}; this is mode {self.mode}")
        if self.mtu:
            between("net", "mtu", self.mtu, MIN_MTU, MAX_MTU)
        if self.mac:
            from pyhv.net.mac import parse_mac

            parse_mac(self.mac, "net: mac")
        _CHECKS.get(self.mode, _nothing)(self)

    @classmethod
    def user(cls, *, forward: tuple[str, ...] | list[str] = (), **fields: Any) -> Net:
        """User-mode networking: no privileges, DHCP and DNS for the guest, and these ports of the host's."""
        return cls("user", forward=tuple(forward) if isinstance(forward, list) else forward, **fields)

    @classmethod
    def tap(cls, name: str = "", *, namespace: str = "", **fields: Any) -> Net:
        """A tap interface of the host's."""
        return cls("tap", name=name, namespace=namespace, **fields)

    @classmethod
    def socket(cls, path: str | PathLike[str], *, listen: bool = False, **fields: Any) -> Net:
        """A Unix stream socket."""
        from os import fspath

        return cls("socket", path=fspath(path), listen=listen, **fields)

    @classmethod
    def peer(cls, object: Peer, **fields: Any) -> Net:
        """A Python object at the other end; such a machine cannot be saved as a document."""
        return cls("peer", object=object, **fields)

    def build(self) -> Device:
        """The device. What the host lacks is found when it becomes part of a machine."""
        from pyhv.net.mac import parse_mac
        from pyhv.virtio.net import VirtioNet

        return VirtioNet(
            self._backend(),
            mac=parse_mac(self.mac, "net: mac") if self.mac else None,
            mtu=self.mtu,
            pcap=self.pcap,
            connected=self.link,
            transport=self.transport,
        )

    def _backend(self) -> NetBackend:
        if self.mode == "user":
            from pyhv.net.forward import parse_forward
            from pyhv.net.user import UserBackend

            return UserBackend(
                forwards=[parse_forward(text) for text in self.forward],
                restrict=self.restrict,
                host_loopback=self.host,
                ipv6=self.ipv6,
                mtu=self.mtu,
            )
        if self.mode == "tap":
            from pyhv.net.tap import TapBackend

            return TapBackend(
                name=self.name, namespace=self.namespace, address=self.address, bridge=self.bridge, mtu=self.mtu
            )
        if self.mode == "socket":
            from pyhv.net.stream import StreamBackend

            return StreamBackend(self.path, listen=self.listen)
        if self.mode == "peer":
            from pyhv.net.peer import PeerBackend

            assert self.object is not None
            return PeerBackend(self.object)
        from pyhv.net.backend import NetBackend

        return NetBackend()


def _nothing(net: Net) -> None:
    return None


def _check_user(net: Net) -> None:
    from pyhv.net.forward import parse_forward

    if not isinstance(net.forward, tuple):
        raise ConfigError(f"net: forward: {net.forward!r} is not a list of forwards")
    for text in net.forward:
        parse_forward(str(text))


def _check_tap(net: Net) -> None:
    name = fsencode(net.name)
    if len(name) > MAX_NAME or b"/" in name or b" " in name or name in (b".", b".."):
        raise ConfigError(f"net: name: {net.name!r} is not an interface's name of at most {MAX_NAME} bytes")
    if net.address:
        address, _, prefix = net.address.partition("/")
        from pyhv.net.forward import parse_ipv4

        try:
            parse_ipv4(address)
            good = 0 <= int(prefix) <= 32
        except ValueError:
            good = False
        if not good:
            raise ConfigError(f"net: address: {net.address!r} is not an address with a prefix such as 10.0.0.1/24")


def _check_socket(net: Net) -> None:
    if not net.path:
        raise ConfigError("net: path: missing; mode socket needs one")


def _check_peer(net: Net) -> None:
    from pyhv.net.peer import Peer

    if not isinstance(net.object, Peer):
        raise ConfigError(f"net: object: {net.object!r} is not a pyhv.net.Peer, which mode peer needs (in Python)")


_CHECKS = {"user": _check_user, "tap": _check_tap, "socket": _check_socket, "peer": _check_peer}
