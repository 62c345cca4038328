"""A network device joined to the model driver, and frames to send through it."""

from struct import pack

from pyhv.net import ids
from pyhv.net.frames import ETHERTYPE_IPV4, ICMP, UDP, Ipv4, Udp, ethernet, icmp
from pyhv.testing.bench import DeviceBench
from pyhv.testing.virtio import DirectLink, DirectTransport, VirtioDriver
from pyhv.virtio.net import CONTROL, RECEIVE, TRANSMIT, VirtioNet

GUEST = b"\x02\x76\x00\x00\x00\x02"
GUEST_IP = bytes((10, 0, 0, 2))
PLAIN = bytes(ids.HEADER_SIZE)


class NetDriver(VirtioDriver):
    """The model driver with a network interface's words for its queues."""

    def post(self, count, *sizes, indirect=False):
        """Give the device `count` receive buffers, each of pieces of these sizes."""
        buffers = [self.queues[RECEIVE].add([], sizes, indirect=indirect) for _ in range(count)]
        self.queues[RECEIVE].kick()
        return buffers

    def send(self, frame, header=PLAIN):
        """Send a frame, as one buffer of header and frame."""
        assert self.queues[TRANSMIT].request([header + frame]) == b""

    def command(self, kind, command, data=b""):
        """A control command's ack."""
        return self.queues[CONTROL].request([bytes((kind, command)), data] if data else [bytes((kind, command))], [1])[0]

    def frames(self, timeout=0.0):
        """What was received since the last call: (header, frame), merged over its buffers."""
        self.run(timeout)
        while self.run():
            pass
        found = []
        buffers = self.queues[RECEIVE].used()
        while buffers:
            count = int.from_bytes(buffers[0].data[ids.NUM_BUFFERS : ids.HEADER_SIZE], "little")
            assert 1 <= count <= len(buffers)
            data = b"".join(buffer.data for buffer in buffers[:count])
            assert all(buffer.data == buffer.space for buffer in buffers[: count - 1])
            found.append((data[: ids.HEADER_SIZE], data[ids.HEADER_SIZE :]))
            del buffers[:count]
        return found

    def wait_frames(self, count=1, turns=200):
        """Received frames, at least `count` of them."""
        found = []
        for _ in range(turns):
            found += self.frames(0.05)
            if len(found) >= count:
                return [frame for _, frame in found]
        raise AssertionError(f"{len(found)} frames came, not {count}")


def net_bench(backend, *, memory=1 << 20, start=True, device=None, **options):
    """A device over this backend, and its driver."""
    bench = DeviceBench(memory=memory)
    device = device or VirtioNet(backend, mac=GUEST)
    device.open(bench.platform)
    transport = DirectTransport(device, bench.platform)
    device.connect(transport)
    driver = NetDriver(bench, device, DirectLink(transport))
    if start:
        driver.start(**options)
    return driver


def ping(target_mac, source_ip, target_ip, data=b"hello", mac=GUEST):
    """An echo request in a frame."""
    message = icmp(8, pack(">HH", 7, 1) + data)
    return ethernet(target_mac, mac, ETHERTYPE_IPV4, Ipv4(source_ip, target_ip, ICMP, message).pack())


def datagram(target_mac, source_ip, target_ip, source, target, data, mac=GUEST):
    """A UDP datagram in a frame."""
    body = Udp(source, target, data).pack(source_ip, target_ip)
    return ethernet(target_mac, mac, ETHERTYPE_IPV4, Ipv4(source_ip, target_ip, UDP, body).pack())
