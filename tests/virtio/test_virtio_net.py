"""The network device against the model driver, over a backend that is made of two lists."""

from collections import deque
from struct import pack

import pytest
from virtio_net_driver import GUEST, PLAIN, NetDriver, net_bench

from pyhv.net import ids
from pyhv.net.backend import NetBackend, scatter
from pyhv.net.frames import BROADCAST
from pyhv.net.receiver import BUDGET_FRAMES
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import MmioLink
from pyhv.virtio.net import CONTROL, RECEIVE, TRANSMIT, VirtioNet

OFFLOADS = ids.HOST_OFFLOADS | ids.GUEST_OFFLOADS
FRAME = GUEST + b"\x02\0\0\0\0\7\x08\0" + bytes(range(46))
TSO = ids.HEADER.pack(ids.HDR_NEEDS_CSUM, ids.GSO_TCPV4, 54, 1448, 34, 16, 0)


class ListBackend(NetBackend):
    """`incoming` is for the guest, `sent` what it sent: (header, frame)."""

    def __init__(self, *, header=False, offloads=0):
        self.header = header
        self.offloads = offloads
        self.incoming = deque()
        self.sent = []
        self.resumed = False
        self.flushed = 0
        self.guest_offloads = 0
        self.closed = 0

    def open(self, events, clock, listener):
        self.listener = listener

    def resume(self):
        self.resumed = True

    def pause(self):
        self.resumed = False

    def set_guest_offloads(self, offloads):
        self.guest_offloads = offloads

    def send(self, header, frame):
        self.sent.append((header, b"".join(frame)))

    def flush(self):
        self.flushed += 1

    def receive(self, into):
        return scatter(self.incoming.popleft(), into) if self.incoming else 0

    def close(self):
        self.closed += 1

    def deliver(self, *frames):
        """Frames for the guest, with their header where there is one."""
        self.incoming += frames
        if self.resumed:
            self.listener.frames_waiting()


def vnet():
    """A backend as a tap is one."""
    return ListBackend(header=True, offloads=OFFLOADS)


def config(driver):
    data = driver.link.read_config(0, 12)
    return data[:6], int.from_bytes(data[6:8], "little"), int.from_bytes(data[10:12], "little")


# What is offered


def test_without_a_header_no_offload_is_offered():
    driver = net_bench(ListBackend())
    assert not driver.negotiated & OFFLOADS
    assert not driver.has(ids.F_CTRL_GUEST_OFFLOADS)
    assert not driver.has(ids.F_MTU)
    assert driver.has(ids.F_MRG_RXBUF)
    assert config(driver) == (GUEST, ids.S_LINK_UP, 0)


def test_offloads_are_the_backends():
    driver = net_bench(vnet())
    assert driver.negotiated & OFFLOADS == OFFLOADS
    assert driver.device.backend.guest_offloads == ids.GUEST_OFFLOADS
    driver.start(without=[ids.F_GUEST_CSUM])
    assert driver.device.backend.guest_offloads == 0
    driver.start(without=[ids.F_GUEST_TSO4, ids.F_GUEST_TSO6])
    assert driver.device.backend.guest_offloads == ids.bits(ids.F_GUEST_CSUM, ids.F_GUEST_USO4, ids.F_GUEST_USO6)
    driver.link.set_status(0)
    assert driver.device.backend.guest_offloads == 0


def test_the_default_address_comes_from_the_backend():
    drivers = [net_bench(ListBackend(), device=VirtioNet(ListBackend())) for _ in range(2)]
    addresses = {config(driver)[0] for driver in drivers}
    assert len(addresses) == 1
    assert addresses.pop()[0] & 3 == 2


# Transmission


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pieces", [[PLAIN + FRAME], [PLAIN, FRAME], [PLAIN[:5], PLAIN[5:] + FRAME[:20], FRAME[20:]]])
def test_frames_are_sent_however_they_are_cut(packed, pieces):
    driver = net_bench(ListBackend(), packed=packed)
    assert driver.queues[TRANSMIT].request(pieces, indirect=len(pieces) > 1) == b""
    assert driver.device.backend.sent == [(PLAIN, FRAME)]
    assert driver.device.backend.flushed
    counters = driver.device.counters
    assert (counters.sent, counters.sent_bytes) == (1, len(FRAME))


def test_many_frames_at_once():
    driver = net_bench(ListBackend())
    queue = driver.queues[TRANSMIT]
    for number in range(100):
        queue.add([PLAIN + FRAME + bytes([number])])
    queue.kick()
    assert [frame[-1] for _, frame in driver.device.backend.sent] == list(range(100))
    assert len(queue.used()) == 100
    assert driver.interrupts[TRANSMIT] == 1


@pytest.mark.parametrize("data", [b"", b"x", PLAIN, PLAIN + bytes(13), PLAIN + bytes(ids.MAX_FRAME + 1)])
def test_frames_that_are_too_short_or_too_long_are_not_sent(data):
    driver = net_bench(ListBackend(), memory=1 << 21)
    assert driver.queues[TRANSMIT].request([data] if data else [], [] if data else [4]) == b""
    assert driver.device.backend.sent == []
    assert driver.device.counters.bad_header == 1
    driver.send(FRAME)
    assert driver.device.backend.sent == [(PLAIN, FRAME)]


def test_the_longest_frame_is_sent():
    driver = net_bench(ListBackend(), memory=1 << 21)
    driver.send(bytes(ids.MAX_FRAME))
    assert len(driver.device.backend.sent[0][1]) == ids.MAX_FRAME


def test_headers_are_checked_against_what_was_negotiated():
    frame = bytes(12) + b"\x08\x00\x45" + bytes(8) + b"\x06" + bytes(22) + b"\x50" + bytes(2000)
    driver = net_bench(vnet())
    driver.send(frame, ids.HEADER.pack(0xFF, ids.GSO_TCPV4, 0xFFFF, 1448, 34, 16, 9))
    assert driver.device.backend.sent == [(TSO, frame)]
    driver.send(frame, ids.HEADER.pack(1, ids.GSO_TCPV4, 54, 0, 34, 16, 0))
    driver.send(frame, ids.HEADER.pack(1, 0, 0, 0, 3000, 16, 0))
    assert driver.device.counters.bad_header == 2
    driver.start(without=[ids.F_HOST_TSO4])
    driver.send(frame, TSO)
    driver.start(without=[ids.F_CSUM])  # what stands on it counts for nothing
    driver.send(frame, TSO)
    assert driver.device.counters.bad_header == 4
    assert len(driver.device.backend.sent) == 1


def test_offloads_without_a_backend_for_them_are_not_sent():
    driver = net_bench(ListBackend())
    driver.send(FRAME, ids.HEADER.pack(1, 0, 0, 0, 34, 6, 0))
    driver.send(FRAME, TSO)
    assert driver.device.backend.sent == []
    assert driver.device.counters.bad_header == 2


# Reception


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", [[2048], [12, 2000], [5, 20, 20, 2000]])
def test_frames_arrive_however_buffers_are_cut(packed, merged, sizes):
    driver = net_bench(ListBackend(), packed=packed, without=() if merged else [ids.F_MRG_RXBUF])
    buffers = driver.post(3, *sizes)
    driver.device.backend.deliver(FRAME, FRAME[:14], FRAME)
    assert driver.frames() == [(PLAIN[:10] + b"\1\0", frame) for frame in (FRAME, FRAME[:14], FRAME)]
    assert [buffer.written for buffer in buffers] == [12 + len(FRAME), 26, 12 + len(FRAME)]
    assert driver.device.counters.received_bytes == 2 * len(FRAME) + 14


def test_headers_of_the_backend_reach_the_driver():
    driver = net_bench(vnet())
    driver.post(2, 2048)
    driver.device.backend.deliver(TSO + FRAME, ids.HEADER.pack(2, 0, 0, 0, 0, 0, 77) + FRAME)
    assert driver.frames() == [
        (TSO[:10] + b"\1\0", FRAME),
        (ids.HEADER.pack(2, 0, 0, 0, 0, 0, 1), FRAME),
    ]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("size", [12, 13, 100, 1500, 4096])
def test_a_long_frame_is_spread_over_buffers(header, size):
    """The first finds the device unprepared, the second does not; frames() checks that all but the last buffer are full."""
    driver = net_bench(vnet() if header else ListBackend(), memory=1 << 22)
    length = min(60000, 60 * size)
    frame = GUEST + bytes(n * 7 & 0xFF for n in range(length - 6))
    driver.post(230, size)
    lead = TSO if header else b""
    for _ in range(2):
        driver.device.backend.deliver(lead + frame)
        (found,) = driver.frames()
        count = -(-(length + 12) // size)
        assert found == ((TSO if header else PLAIN)[:10] + count.to_bytes(2, "little"), frame)


def test_a_short_frame_after_a_long_one_takes_one_buffer():
    driver = net_bench(vnet(), memory=1 << 22)
    driver.post(60, 4096)
    driver.device.backend.deliver(TSO + FRAME.ljust(50000), TSO + FRAME, TSO + FRAME.ljust(50000))
    assert [header[10] for header, _ in driver.frames()] == [13, 1, 13]


def test_a_frame_that_finds_too_few_buffers_waits_for_more():
    driver = net_bench(ListBackend(), memory=1 << 22)
    frames = [FRAME.ljust(10000, b"1"), FRAME.ljust(20000, b"2"), FRAME]
    driver.post(3, 4096)
    driver.device.backend.deliver(*frames)
    assert [frame for _, frame in driver.frames()] == frames[:1]
    assert not driver.device.backend.resumed
    driver.post(2, 4096)
    assert driver.frames() == []
    driver.post(5, 4096)
    assert [frame for _, frame in driver.frames()] == frames[1:]
    assert driver.device.backend.resumed
    assert driver.device.counters.lost == 0


def test_a_frame_that_no_number_of_buffers_can_hold_is_lost():
    driver = net_bench(vnet(), size=16)
    driver.post(16, 100)
    driver.device.backend.deliver(TSO + FRAME.ljust(5000), TSO + FRAME)
    assert [frame for _, frame in driver.frames()] == [FRAME]
    assert driver.device.counters.lost == 1


def test_buffers_of_very_many_pieces_are_no_more_than_the_host_takes():
    """readv takes 1024 pieces: the rest of the buffers is for other frames."""
    driver = net_bench(vnet(), memory=1 << 22)
    for _ in range(8):
        driver.queues[RECEIVE].add([], [12] + [1] * 200, indirect=True)
    driver.queues[RECEIVE].kick()
    driver.device.backend.deliver(TSO + FRAME.ljust(100), TSO + FRAME.ljust(2000), TSO + FRAME.ljust(150))
    assert [len(frame) for _, frame in driver.frames()] == [100, 150]
    assert driver.device.counters.lost == 1


def test_without_merging_a_frame_has_one_buffer_or_none():
    driver = net_bench(ListBackend(), without=[ids.F_MRG_RXBUF])
    driver.post(3, 100)
    driver.device.backend.deliver(FRAME.ljust(89), FRAME.ljust(88), FRAME)
    assert [frame for _, frame in driver.frames()] == [FRAME.ljust(88), FRAME]
    assert driver.device.counters.lost == 1


def test_buffers_without_room_for_a_header_go_back():
    driver = net_bench(ListBackend())
    buffers = driver.post(2, 11) + driver.post(1, 2048)
    driver.device.backend.deliver(FRAME)
    driver.run()
    assert [buffer.head for buffer in driver.queues[RECEIVE].used()] == [buffer.head for buffer in buffers]
    assert [buffer.written for buffer in buffers] == [0, 0, 12 + len(FRAME)]
    assert driver.device.counters.bad_buffer == 2


def test_a_driver_without_buffers_stops_the_backend_until_it_has_some():
    driver = net_bench(ListBackend())
    backend = driver.device.backend
    assert not backend.resumed  # it has given none yet
    driver.post(1, 2048)
    assert backend.resumed
    backend.deliver(*[FRAME] * 5)
    assert len(driver.frames()) == 1
    assert not backend.resumed
    assert len(backend.incoming) == 4
    driver.post(10, 2048)
    assert len(driver.frames()) == 4
    assert backend.resumed


def test_many_frames_come_in_portions():
    driver = net_bench(ListBackend())
    driver.post(250, 100)
    driver.device.backend.deliver(*[FRAME] * 200)
    assert len(driver.queues[RECEIVE].used()) == BUDGET_FRAMES
    assert len(driver.frames()) == 200 - BUDGET_FRAMES


def test_unwanted_frames_take_no_buffer():
    driver = net_bench(ListBackend())
    driver.post(2, 2048)
    assert driver.command(ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0") == ids.CTRL_OK
    other = b"\x02\0\0\0\0\x99" + FRAME[6:]
    driver.device.backend.deliver(other, FRAME, other, BROADCAST + FRAME[6:])
    assert [frame for _, frame in driver.frames()] == [FRAME, BROADCAST + FRAME[6:]]
    assert driver.device.counters.filtered == 2


def test_vlans_are_filtered_from_the_start_where_that_was_negotiated():
    tagged = FRAME[:12] + b"\x81\0\0\5" + FRAME[12:]
    driver = net_bench(ListBackend())
    driver.post(3, 2048)
    driver.device.backend.deliver(tagged, FRAME)
    assert [frame for _, frame in driver.frames()] == [FRAME]
    assert driver.command(ids.CTRL_VLAN, ids.CTRL_VLAN_ADD, pack("<H", 5)) == ids.CTRL_OK
    driver.device.backend.deliver(tagged)
    assert [frame for _, frame in driver.frames()] == [tagged]
    driver.start(without=[ids.F_CTRL_VLAN])
    driver.post(1, 2048)
    driver.device.backend.deliver(tagged)
    assert [frame for _, frame in driver.frames()] == [tagged]


def test_frames_longer_than_the_mtu_are_lost_unless_they_are_segments():
    backend = vnet()
    driver = net_bench(backend, device=VirtioNet(backend, mac=GUEST, mtu=1500), memory=1 << 21)
    assert config(driver) == (GUEST, ids.S_LINK_UP, 1500)
    driver.post(8, 4096)
    backend.deliver(PLAIN + FRAME.ljust(1519), PLAIN + FRAME.ljust(1518), TSO + FRAME.ljust(9000))
    assert [len(frame) for _, frame in driver.frames()] == [1518, 9000]
    assert driver.device.counters.lost == 1


# The link, commands, resets


def test_a_link_that_is_down_passes_nothing():
    driver = net_bench(ListBackend())
    device, backend = driver.device, driver.device.backend
    driver.post(2, 2048)
    device.set_link(False)
    assert config(driver)[1] == 0
    assert driver.config_interrupts == 1
    assert not backend.resumed
    driver.send(FRAME)
    backend.deliver(FRAME)
    assert driver.frames() == []
    assert (backend.sent, device.counters.unsent) == ([], 1)
    device.set_link(True)
    assert config(driver)[1] == ids.S_LINK_UP
    assert len(driver.frames()) == 1
    backend.link_up = False
    device.link_changed()
    assert config(driver)[1] == 0
    assert driver.config_interrupts == 3


def test_a_cable_can_be_out_at_first():
    driver = net_bench(ListBackend(), device=VirtioNet(ListBackend(), connected=False))
    assert config(driver)[1] == 0


def test_the_guest_can_be_asked_to_announce_itself():
    driver = net_bench(ListBackend())
    driver.device.announce()
    assert config(driver)[1] == ids.S_LINK_UP | ids.S_ANNOUNCE
    assert driver.config_interrupts == 1
    assert driver.command(ids.CTRL_ANNOUNCE, ids.CTRL_ANNOUNCE_ACK) == ids.CTRL_OK
    assert config(driver)[1] == ids.S_LINK_UP
    driver.start(without=[ids.F_GUEST_ANNOUNCE])
    driver.device.announce()
    assert config(driver)[1] == ids.S_LINK_UP


def test_the_address_can_be_set_until_the_next_reset():
    driver = net_bench(ListBackend())
    other = b"\x02\0\0\0\0\x99"
    assert driver.command(ids.CTRL_MAC, ids.CTRL_MAC_ADDR_SET, other) == ids.CTRL_OK
    assert config(driver)[0] == other
    driver.link.write_config(0, bytes(6))
    assert config(driver)[0] == other
    driver.start()
    assert config(driver)[0] == GUEST


def test_guest_offloads_can_be_turned_off():
    driver = net_bench(vnet())
    assert driver.command(ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, bytes(8)) == ids.CTRL_OK
    assert driver.device.backend.guest_offloads == 0
    every = pack("<Q", ids.GUEST_OFFLOADS)
    assert driver.command(ids.CTRL_GUEST_OFFLOADS, ids.CTRL_GUEST_OFFLOADS_SET, every) == ids.CTRL_OK
    assert driver.device.backend.guest_offloads == ids.GUEST_OFFLOADS


def test_malformed_commands_get_an_error():
    driver = net_bench(ListBackend(), memory=1 << 21)
    queue = driver.queues[CONTROL]
    assert queue.request([b"\0\0\0"], []) == b""
    assert queue.request([], [1]) == b"\1"
    assert queue.request([b"\0"], [1]) == b"\1"
    assert queue.request([b"\1\0" + bytes(70000)], [1]) == b"\1"
    assert queue.request([b"\0\0\0"], [3]) == b"\0"
    assert driver.device.counters.bad_command == 4


def test_a_reset_forgets_buffers_filters_and_a_frame_that_waits():
    driver = net_bench(ListBackend(), memory=1 << 21)
    driver.post(2, 4096)
    driver.command(ids.CTRL_RX, ids.CTRL_RX_PROMISC, b"\0")
    driver.device.backend.deliver(FRAME.ljust(9000))
    assert driver.frames() == []
    driver.start()
    assert not driver.device.backend.resumed
    old = driver.queues[RECEIVE]
    driver.post(1, 4096)
    other = b"\x02\0\0\0\0\x99" + FRAME[6:]
    driver.device.backend.deliver(other)
    assert [frame for _, frame in driver.frames()] == [other]
    assert old is driver.queues[RECEIVE]


def test_a_queue_that_the_driver_takes_back_gets_nothing():
    driver = net_bench(ListBackend())
    driver.post(4, 2048)
    driver.device.backend.deliver(FRAME)
    assert len(driver.frames()) == 1
    driver.transport.reset_queue(driver.device.queues[RECEIVE])
    driver.device.frames_waiting()
    driver.device.backend.incoming.append(FRAME)
    driver.device.frames_waiting()
    assert len(driver.device.backend.incoming) == 1
    driver.queues[RECEIVE] = type(driver.queues[RECEIVE])(driver, RECEIVE, 64)
    driver.post(1, 2048)
    assert [frame for _, frame in driver.frames()] == [FRAME]


def test_nothing_happens_before_the_driver_is_ready_and_after_it_broke_its_rings():
    driver = net_bench(ListBackend(), start=False)
    driver.device.frames_waiting()
    driver.start()
    driver.post(2, 2048)
    driver.device.fail("test")
    driver.device.backend.incoming.append(FRAME)
    driver.device.frames_waiting()
    driver.device.set_link(True)
    assert len(driver.device.backend.incoming) == 1
    driver.start()
    driver.post(2, 2048)
    assert len(driver.frames()) == 1


def test_closing_closes_the_backend_and_the_capture(tmp_path):
    backend = ListBackend()
    path = tmp_path / "net.pcap"
    driver = net_bench(backend, device=VirtioNet(backend, pcap=str(path)), memory=1 << 21)
    driver.bench.clock.advance(1_500_000_000)
    driver.post(6, 2048)
    driver.send(FRAME)
    backend.deliver(FRAME[:20], FRAME.ljust(5000), FRAME.ljust(6000))  # the last one has to wait
    assert len(driver.frames()) == 2
    driver.device.close()
    assert backend.closed
    data = path.read_bytes()
    lengths, at = [], 24
    while at < len(data):
        assert data[at : at + 8] == pack("<II", 1, 500_000_000)
        lengths.append(int.from_bytes(data[at + 8 : at + 12], "little"))
        assert data[at + 16 : at + 16 + 20] == FRAME[:20]
        at += 16 + lengths[-1]
    assert lengths == [len(FRAME), 20, 5000, 6000]


def test_over_virtio_mmio():
    backend = ListBackend()
    device = VirtioNet(backend, mac=GUEST, transport="mmio")
    bench = DeviceBench(device)
    driver = NetDriver(bench, device, MmioLink(bench, device.link.address))
    driver.start()
    assert config(driver) == (GUEST, ids.S_LINK_UP, 0)
    driver.post(4, 2048)
    driver.send(FRAME)
    backend.deliver(FRAME)
    assert backend.sent == [(PLAIN, FRAME)]
    assert [frame for _, frame in driver.frames()] == [FRAME]
    device.set_link(False)
    assert driver.link.get(0x60) & 2
