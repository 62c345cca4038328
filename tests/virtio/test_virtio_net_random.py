"""The network device under random buffers, frames, commands and resets; and drivers that mean harm."""

from struct import pack

from hypothesis import given, settings
from hypothesis import strategies as st
from test_virtio_net import ListBackend, vnet
from virtio_net_driver import GUEST, PLAIN, net_bench

from pyhv.net import ids
from pyhv.virtio.net import CONTROL, RECEIVE, TRANSMIT

lengths = st.integers(14, 200) | st.integers(1400, 4000) | st.integers(14, 30000)
sizes = st.lists(st.integers(1, 300) | st.integers(1000, 5000), min_size=1, max_size=4)


def numbered(number, length):
    """A frame that no other is like."""
    return (GUEST + pack("<I", number) + bytes(range(200)) * (length // 200 + 1))[:length]


@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.lists(lengths, min_size=1, max_size=6) | sizes.map(tuple), max_size=25),
)
def test_what_arrives_is_what_was_sent_in_its_order(header, merged, packed, steps):
    backend = vnet() if header else ListBackend()
    driver = net_bench(backend, memory=4 << 20, packed=packed, without=() if merged else [ids.F_MRG_RXBUF])
    counters = driver.device.counters
    expected, found, lead = [], [], PLAIN if header else b""
    for step in steps:
        if isinstance(step, tuple):
            buffers = [driver.queues[RECEIVE].add([], step, indirect=len(step) > 2) for _ in range(3)]
            driver.queues[RECEIVE].kick()
            assert all(sum(size for _, size in buffer.writable) == sum(step) for buffer in buffers)
        else:
            frames = [numbered(len(expected) + n, length) for n, length in enumerate(step)]
            expected += frames
            backend.deliver(*[lead + frame for frame in frames])
        found += received(driver)
    assert counters.received == len(found)
    remaining = iter(expected)
    assert all(frame in remaining for frame in found)
    waiting = len(backend.incoming) + bool(driver.device._receiver._held)
    assert len(found) + counters.lost + waiting == len(expected)
    if merged:
        assert counters.lost == 0
    assert len(driver.device._receiver._kept) <= driver.queues[RECEIVE].size


def received(driver):
    """Frames, without the buffers that were given back for being too short."""
    while driver.run():
        pass
    buffers = [buffer for buffer in driver.queues[RECEIVE].used() if buffer.written > 0]
    found = []
    while buffers:
        count = int.from_bytes(buffers[0].data[10:12], "little")
        assert 1 <= count <= len(buffers)
        assert all(buffer.data == buffer.space for buffer in buffers[: count - 1])
        found.append(b"".join(buffer.data for buffer in buffers[:count])[12:])
        del buffers[:count]
    return found


chains = st.tuples(
    st.lists(st.binary(max_size=80) | st.just(PLAIN) | st.integers(0, 3000).map(bytes), max_size=3),
    st.lists(st.integers(0, 200) | st.just(2048), max_size=3),
).filter(lambda chain: chain[0] or chain[1])
actions = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([RECEIVE, TRANSMIT, CONTROL]), chains, st.booleans()),
    st.tuples(st.just("command"), st.lists(st.integers(0, 6), min_size=2, max_size=2).map(bytes), st.binary(max_size=20)),
    st.tuples(st.just("deliver"), st.lists(st.binary(min_size=1, max_size=300), max_size=5)),
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("announce")),
    st.tuples(st.just("reset"), st.integers(0, (1 << 64) - 1), st.booleans()),
    st.tuples(st.just("queue reset"), st.sampled_from([RECEIVE, TRANSMIT, CONTROL])),
    st.tuples(st.just("kick"), st.integers(0, 3)),
    st.tuples(st.just("scribble"), st.integers(0, 4000), st.binary(max_size=40)),
)


@settings(max_examples=150)
@given(st.lists(actions, max_size=40))
def test_no_driver_makes_the_device_fall(steps):
    backend = vnet()
    driver = net_bench(backend, memory=1 << 20, size=16)
    for step in steps:
        act(driver, backend, *step)
        for _ in range(20):
            driver.run()
    assert len(driver.device._receiver._kept) <= 256
    assert all(len(header) == 12 and len(frame) >= 14 for header, frame in backend.sent)
    backend.incoming.clear()
    driver.device.set_link(True)
    driver.start()  # and it works for the next one
    driver.post(4, 2048)
    backend.deliver(PLAIN + numbered(1, 100))
    assert [frame for _, frame in driver.frames()] == [numbered(1, 100)]
    backend.sent.clear()
    driver.send(numbered(2, 60))
    assert backend.sent == [(PLAIN, numbered(2, 60))]


def act(driver, backend, name, *values):
    if name == "add":
        index, (readable, writable), indirect = values
        queue = driver.queues[index]
        if getattr(queue, "free", [0] * 8)[7:] and len(queue.outstanding) < 8:
            queue.add(readable, writable, indirect=indirect)
            queue.kick(force=True)
        recall(queue)
    elif name == "command":
        queue = driver.queues[CONTROL]
        if len(queue.outstanding) < 8:
            queue.add([values[0] + values[1]], [1])
            queue.kick(force=True)
        recall(queue)
    elif name == "deliver":
        backend.deliver(*[PLAIN + frame for frame in values[0]])
    elif name == "link":
        driver.device.set_link(values[0])
    elif name == "announce":
        driver.device.announce()
    elif name == "reset":
        features, packed = values
        offered = driver.link.features()
        driver.start(features=features & offered | 1 << 32, packed=packed, size=16)
    elif name == "queue reset":
        driver.transport.reset_queue(driver.device.queues[values[0]])
    elif name == "kick":
        driver.link.notify(values[0])
    else:
        offset, data = values
        driver.memory.write(driver.queues[0].descriptors + offset, data)


def recall(queue):
    """What came back, as far as the rings still make sense."""
    try:
        queue.used()
    except (KeyError, IndexError):  # the scribbling hit the driver's own side
        queue.outstanding.clear()
