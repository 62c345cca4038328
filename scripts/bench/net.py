"""Rows about the network: frames of 64 KiB from a tap into a guest's receive queue, and from its transmit queue into the tap.

The driver and the sender are prepared outside of what is measured: it is the processor time of the device alone, from a frame
in the kernel to a used buffer, and from an available buffer into the kernel.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pyhv
from bench.measure import NotMeasured, Row, interleaved
from pyhv.net import ids
from pyhv.net.frames import ETHERTYPE_IPV4, Ipv4, ethernet
from pyhv.net.namespace import inside, make_namespace, remove_namespace
from pyhv.net.tap import TapBackend
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import Buffer, DirectLink, DirectTransport, VirtioDriver
from pyhv.virtio.ids import DESC_INDIRECT, DESC_WRITE
from pyhv.virtio.net import RECEIVE, TRANSMIT, VirtioNet

FRAMES = 96
"""In each round."""
REPEAT = 8
MEMORY = 64 << 20
PAGE = 4096
TARGET_GBIT = 10
SEGMENT = 1448
LONGEST = 65535
"""Bytes of a frame that a kernel does not cut (gso_max_size)."""
SOL_PACKET, PACKET_VNET_HDR, SO_SNDBUFFORCE = 263, 15, 32
GUEST, HOST = b"\x02\x76\x00\x00\x00\x02", b"\x02\x76\x00\x00\x00\x01"
_ADDRESSES = (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))


def large_frame() -> tuple[bytes, bytes]:
    """A header that asks for TCP segmentation, and the longest frame for it."""
    tcp = struct.pack(">HHIIBBHHH", 5000, 5001, 1, 1, 5 << 4, 0x10, 0xFFFF, 0, 0)
    payload = bytes(LONGEST - 54)
    packet = Ipv4(*_ADDRESSES, 6, tcp + payload).pack()
    header = ids.HEADER.pack(ids.HDR_NEEDS_CSUM, ids.GSO_TCPV4, 54, SEGMENT, 34, 16, 0)
    return header, ethernet(GUEST, HOST, ETHERTYPE_IPV4, packet)


class Setup:
    """A tap in a namespace, a device over it, the model driver, and a socket that sends into the tap."""

    def __init__(self, namespace: str, *, mergeable: bool) -> None:
        self.backend = TapBackend(namespace=namespace)
        self.device = VirtioNet(self.backend, mac=GUEST)
        self.mergeable = mergeable
        bench = DeviceBench(memory=MEMORY)
        self.device.open(bench.platform)
        transport = DirectTransport(self.device, bench.platform)
        self.device.connect(transport)
        self.driver = VirtioDriver(bench, self.device, DirectLink(transport))
        self.driver.start(without=() if mergeable else (ids.F_MRG_RXBUF,))
        self.prepared: list[tuple[int, int, int]] = []
        self.lent: dict[int, tuple[int, int, int]] = {}
        self.header, self.frame = large_frame()
        self.sender = inside(namespace, self._sender)

    def _sender(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        made.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)
        made.bind((self.backend.name, 0))
        return made

    def refill(self) -> None:
        """Return used receive buffers to the device; at first, make them: chains of 17 pieces in tables, or single pages."""
        queue = self.driver.queues[RECEIVE]
        if not self.prepared and not self.lent:
            for _ in range(queue.size):
                if self.mergeable:
                    self.prepared.append((self.driver.allocate(PAGE), PAGE, DESC_WRITE))
                    continue
                pieces = [(self.driver.allocate(size), size, DESC_WRITE) for size in (ids.HEADER_SIZE, *[PAGE] * 16)]
                table = queue.table(pieces)
                self.prepared.append((self.driver.place(table, 16), len(table), DESC_INDIRECT))
        for buffer in queue.used():
            self.prepared.append(self.lent.pop(buffer.head))
        while self.prepared:
            element = self.prepared.pop()
            head = queue.expose([element])
            self.lent[head] = element
            queue.outstanding[head] = Buffer(self.driver, head, 1, [], [])

    def receive(self) -> float:
        """Gbit/s from the tap into the guest's buffers."""
        counters, calls = self.device.counters, self.driver.bench.events.calls
        frames = 12 if self.mergeable else FRAMES
        spent = moved = 0.0
        for _ in range(REPEAT):
            self.refill()
            for _ in range(frames):
                self.sender.send(self.header[:10] + self.frame)
            before = counters.received_bytes
            began = time.thread_time()
            self.device.frames_waiting()
            while calls:
                calls.popleft()()
            spent += time.thread_time() - began
            got = counters.received_bytes - before
            if got < frames * len(self.frame):
                raise NotMeasured(f"{got} of {frames * len(self.frame)} bytes came through the tap")
            moved += got
        return moved * 8 / spent / 1e9

    def transmit(self) -> float:
        """Gbit/s from the guest's buffers into the tap, where the kernel drops them at once."""
        queue, counters = self.driver.queues[TRANSMIT], self.device.counters
        pieces = [(self.driver.place(self.header), ids.HEADER_SIZE, 0)]
        for at in range(0, len(self.frame), PAGE):
            piece = self.frame[at : at + PAGE]
            pieces.append((self.driver.place(piece), len(piece), 0))
        table = queue.table(pieces)
        element = (self.driver.place(table, 16), len(table), DESC_INDIRECT)
        spent = moved = 0.0
        for _ in range(REPEAT):
            for _ in range(FRAMES):
                head = queue.expose([element])
                queue.outstanding[head] = Buffer(self.driver, head, 1, [], [])
            before = counters.sent_bytes
            began = time.thread_time()
            queue.kick(force=True)
            spent += time.thread_time() - began
            moved += counters.sent_bytes - before
            queue.used()
        if self.backend.dropped:
            raise NotMeasured(f"the tap refused {self.backend.dropped} frames")
        return moved * 8 / spent / 1e9

    def close(self) -> None:
        self.sender.close()
        self.device.close()


def tap(rounds: int) -> Iterator[Row]:
    """Frames of 64 KiB with offloads through a tap."""
    name = f"pyhvbench{os.getpid()}"
    rows: list[tuple[str, Callable[[Setup], float], bool, float | None]] = [
        ("64 KiB frames, tap to guest, a chain each", Setup.receive, False, TARGET_GBIT),
        ("64 KiB frames, tap to guest, 17 buffers each", Setup.receive, True, None),
        ("64 KiB frames, guest to tap, a chain each", Setup.transmit, False, TARGET_GBIT),
    ]
    try:
        if os.geteuid():
            raise NotMeasured("a tap in a namespace needs root")
        make_namespace(name)
        try:
            for title, side, mergeable, target in rows:
                setup = Setup(name, mergeable=mergeable)
                try:
                    (speed,) = interleaved([lambda setup=setup, side=side: side(setup)], rounds)  # type: ignore[misc]
                finally:
                    setup.close()
                yield Row(title, f"{speed:.1f} Gb/s", "", speed, at_least=target, unit="Gbit/s")
        finally:
            remove_namespace(name)
    except (NotMeasured, pyhv.PyhvError, OSError) as error:
        for title, _, _, target in rows:
            yield Row(title, "", "", None, at_least=target, unit="Gbit/s", note=str(error))
