"""A console driver: it answers control messages and reads ports, as Linux's virtio_console does."""

import struct

from virtio_driver import device_bench

from pyhv.virtio import console as vc


class ConsoleDriver:
    """`messages`: the control messages that came, as (port, event, value, tail); `names` and `hosts` what they said."""

    def __init__(self, device, *, buffers=8, size=64, join=device_bench, **options):
        self.driver = join(device, **options)
        self.device = device
        self.size = size
        self.messages = []
        self.names, self.hosts, self.sizes, self.consoles = {}, {}, {}, set()
        self.pending = {}
        self.received = {}
        self.multiport = self.driver.has(vc.F_MULTIPORT)
        if self.multiport:
            for _ in range(buffers):
                self.queue(vc.CONTROL_RECEIVE).add([], [size])
            self.queue(vc.CONTROL_RECEIVE).kick()

    def queue(self, index):
        return self.driver.queues[index]

    def receive_queue(self, port):
        return self.queue(2 * port + 2 if port else 0)

    def transmit_queue(self, port):
        return self.queue(2 * port + 3 if port else 1)

    def control(self, port, event, value=1):
        self.queue(vc.CONTROL_TRANSMIT).add([struct.pack("<IHH", port, event, value)])
        self.queue(vc.CONTROL_TRANSMIT).kick()
        self.queue(vc.CONTROL_TRANSMIT).used()
        self.listen()

    def listen(self):
        """Take control messages, and give the buffers back."""
        queue = self.queue(vc.CONTROL_RECEIVE)
        while buffers := queue.used():
            for buffer in filter(lambda buffer: buffer.written, buffers):
                port, event, value = struct.unpack_from("<IHH", buffer.data)
                tail = buffer.data[8:]
                self.messages.append((port, event, value, tail))
                if event == vc.PORT_NAME:
                    self.names[port] = tail.decode()
                elif event == vc.PORT_OPEN:
                    self.hosts[port] = bool(value)
                elif event == vc.RESIZE:
                    self.sizes[port] = struct.unpack("<HH", tail)
                elif event == vc.CONSOLE_PORT:
                    self.consoles.add(port)
                queue.add([], [self.size])
            queue.kick()

    def boot(self):
        """Announce the driver and make every port ready, and open it."""
        self.control(0, vc.DEVICE_READY)
        for port in [m[0] for m in self.messages if m[1] == vc.DEVICE_ADD]:
            self.control(port, vc.PORT_READY)
        for port in range(len(self.device.ports)):
            self.control(port, vc.PORT_OPEN)
        return self

    def give(self, port=0, count=4, size=32):
        """Buffers for input."""
        for _ in range(count):
            self.receive_queue(port).add([], [size])
        self.receive_queue(port).kick()

    def read(self, port=0):
        """What came in, without giving more buffers."""
        return b"".join(buffer.data for buffer in self.receive_queue(port).used())

    def write(self, data, port=0, **options):
        """Send; gives the buffer."""
        buffer = self.transmit_queue(port).add([data], **options)
        self.transmit_queue(port).kick()
        self.transmit_queue(port).used()
        return buffer
