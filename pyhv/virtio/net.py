"""The network device (virtio 1.2, 5.1), over any backend of `pyhv.net`."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.net import header, ids
from pyhv.net.control import MAX_COMMAND, execute
from pyhv.net.counters import NetCounters
from pyhv.net.filter import ReceiveFilter
from pyhv.net.header import BadHeader
from pyhv.net.ids import ETHERNET_HEADER, HEADER_SIZE, MAX_FRAME
from pyhv.net.mac import claim_mac
from pyhv.net.receiver import Receiver
from pyhv.virtio.device import VirtioDevice

if TYPE_CHECKING:
    from typing import Final

    from pyhv.device import Platform
    from pyhv.net.backend import NetBackend
    from pyhv.net.pcap import Capture
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

RECEIVE: Final = 0
TRANSMIT: Final = 1
CONTROL: Final = 2
QUEUE_SIZES: Final = (256, 256, 64)
FEATURES: Final = ids.bits(
    ids.F_MAC,
    ids.F_STATUS,
    ids.F_MRG_RXBUF,
    ids.F_CTRL_VQ,
    ids.F_CTRL_RX,
    ids.F_CTRL_VLAN,
    ids.F_CTRL_RX_EXTRA,
    ids.F_CTRL_MAC_ADDR,
    ids.F_GUEST_ANNOUNCE,
)
"""What is offered with every backend; offloads are what the backend takes."""

_CONFIG: Final = Struct("<6sHHH")


class VirtioNet(VirtioDevice):
    """A network interface of the guest's, connected to `backend`.

    `mac`: its address, by default one that is made of the backend's identity; `mtu`: 0 says nothing to the guest;
    `pcap`: the path of a capture; `connected`: whether the link is up at first. `counters` says what became of frames.
    """

    name = "net"
    device_id = 1
    queue_sizes = QUEUE_SIZES

    def __init__(
        self,
        backend: NetBackend,
        *,
        mac: bytes | None = None,
        mtu: int = 0,
        pcap: str = "",
        connected: bool = True,
        transport: str = "pci",
    ) -> None:
        super().__init__(transport=transport)
        self.backend = backend
        self.mtu = mtu
        self.live = backend.live
        self.filter = ReceiveFilter()
        self.counters = NetCounters()
        self._wanted_mac = mac
        self._pcap = pcap
        self._capture: Capture | None = None
        self._connected = connected
        self._announce = False
        self._features = 0
        self._continuing = False
        self._ready = False

    def attach(self, platform: Platform) -> None:
        try:
            self.open(platform)
        except BaseException:
            self._close_host()
            raise
        super().attach(platform)

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self._ready = True

    def open(self, platform: Platform) -> None:
        """Take the host's side, which decides what is offered to the driver; `attach` does it."""
        if self._pcap:
            from pyhv.net.pcap import Capture

            self._capture = Capture(self._pcap)
        backend = self.backend
        backend.open(platform.events, platform.clock, self)
        self.mac = claim_mac(platform.memory, self._wanted_mac, backend.identity)
        self.filter.address = self.mac
        self.features = FEATURES | backend.offloads
        if backend.offloads & ids.GUEST_OFFLOADS:
            self.features |= ids.bits(ids.F_CTRL_GUEST_OFFLOADS)
        if self.mtu:
            self.features |= ids.bits(ids.F_MTU)
        self._receiver = Receiver(backend, self.filter, self.counters, platform.clock)
        self._receiver.capture = self._capture
        self._go_on = self.guarded(self._receive)

    def close(self) -> None:
        super().close()
        self._close_host()

    def _close_host(self) -> None:
        self.backend.close()
        if self._capture is not None:
            self._capture.close()

    # What the host's side sees and does

    @property
    def link_up(self) -> bool:
        """Whether the guest is told that its cable is plugged in at both ends."""
        return self._connected and self.backend.link_up

    def set_link(self, up: bool) -> None:
        """Plug the cable in or pull it. Nothing passes while it is out."""
        self._connected = up
        self.link_changed()

    def link_changed(self) -> None:
        """Tell the driver."""
        if not self._ready:  # the host was faster than the machine's building
            return
        self.config_changed()
        if self.link_up:
            self._listen()
        else:
            self.backend.pause()

    def announce(self) -> None:
        """Ask the driver to tell the network where it is now."""
        self._announce = True
        self.config_changed()

    def frames_waiting(self) -> None:
        """The backend has frames for the guest."""
        self._go_on()

    # What the driver sees and does

    def config(self) -> bytes:
        status = ids.S_LINK_UP if self.link_up else 0
        if self._announce and self._features >> ids.F_GUEST_ANNOUNCE & 1:
            status |= ids.S_ANNOUNCE
        return _CONFIG.pack(self.filter.address, status, 1, self.mtu)

    def activate(self) -> None:
        self._features = features = ids.usable(self.negotiated)
        self._receiver.set_up(
            mergeable=self.has(ids.F_MRG_RXBUF), mtu=self.mtu if self.has(ids.F_MTU) else 0
        )
        if features >> ids.F_CTRL_VLAN & 1:
            self.filter.vlans = set()
        self.set_guest_offloads(features & ids.GUEST_OFFLOADS)
        self._listen()

    def deactivate(self) -> None:
        self.backend.pause()
        self.backend.set_guest_offloads(0)
        self._receiver.forget()
        self.filter.reset()
        self.filter.address = self.mac
        self._features = 0
        self._announce = False

    def queue_reset(self, queue: VirtQueue) -> None:
        if queue.index == RECEIVE:
            self._receiver.forget()
            self._starve()

    def handle(self, queue: VirtQueue) -> None:
        if queue.index == TRANSMIT:
            self._transmit(queue)
        elif queue.index == CONTROL:
            self._control(queue)
        elif self._receiver.starving:
            self._listen()

    def set_guest_offloads(self, offloads: int) -> None:
        self.backend.set_guest_offloads(offloads & self.backend.offloads)

    def acknowledge_announcement(self) -> None:
        self._announce = False

    # Frames

    def _listen(self) -> None:
        """Take what waits, and hear of what comes."""
        if self.active and self.link_up:
            self.backend.resume()
            self._go_on()

    def _receive(self) -> None:
        queue = self.queues[RECEIVE]
        if not self.active or not queue.ready or not self.link_up:
            self._starve()
            return
        more = self._receiver.run(queue)
        queue.flush()
        if self._receiver.starving:
            self._starve()
        elif more and not self._continuing:
            self._continuing = True
            self.platform.events.call_soon(self._continue)

    def _starve(self) -> None:
        """No frames until the driver gives buffers."""
        self._receiver.starving = True
        self.backend.pause()

    def _continue(self) -> None:
        self._continuing = False
        self._go_on()

    def _transmit(self, queue: VirtQueue) -> None:
        backend, counters, connected = self.backend, self.counters, self.link_up
        for chain in queue.chains():
            size = chain.readable_size - HEADER_SIZE
            if not ETHERNET_HEADER <= size <= MAX_FRAME:
                counters.bad_header += 1
            elif not connected:
                counters.unsent += 1
            else:
                try:
                    clean = header.clean(chain.read(0, HEADER_SIZE), size, self._features, chain.read)
                except BadHeader:
                    counters.bad_header += 1
                else:
                    counters.sent += 1
                    counters.sent_bytes += size
                    frame = chain.readable_views(HEADER_SIZE)
                    if self._capture is not None:
                        self._capture.write(self.platform.clock.wall_ns(), frame)
                    backend.send(clean, frame)
            queue.push(chain)
        backend.flush()

    def _control(self, queue: VirtQueue) -> None:
        for chain in queue.chains():
            if not chain.writable_size:
                self.counters.bad_command += 1
                queue.push(chain)
                continue
            answer = ids.CTRL_ERR
            if chain.readable_size <= MAX_COMMAND:
                answer = execute(self, self._features, chain.read())
            if answer != ids.CTRL_OK:
                self.counters.bad_command += 1
            chain.write(bytes((answer,)))
            queue.push(chain, 1)
