"""The console device: ports, control messages, sizes, flow in both directions, and drivers that break the rules."""

import struct

import pytest
from console_driver import ConsoleDriver
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import device_bench, mmio_bench

from pyhv.errors import ConfigError
from pyhv.virtio import console as vc
from pyhv.virtio.console import VirtioConsole
from pyhv.virtio.console_port import INPUT_LIMIT, VirtioPort


def stdio(**options):
    """What running a command takes: three streams and one for control."""
    out = bytearray()
    ports = [VirtioPort(name) for name in ("control", "stdin", "stdout", "stderr")]
    ports[2].output = out.extend
    return out, ports, ConsoleDriver(VirtioConsole(ports, transport="mmio"), **options)


# A terminal without MULTIPORT


@pytest.mark.parametrize("join", [device_bench, mmio_bench])
@pytest.mark.parametrize("packed", [False, True])
def test_one_terminal(join, packed):
    out = bytearray()
    port = VirtioPort(console=True, output=out.extend)
    without = (vc.F_MULTIPORT,)
    console = ConsoleDriver(VirtioConsole([port], transport="mmio"), join=join, packed=packed, without=without)
    assert not console.multiport and port.guest_open
    console.write(b"login: ")
    assert out == b"login: "
    console.give(count=2, size=3)
    assert port.input(b"root\n") == 5
    assert console.read() == b"root\n"
    assert console.driver.transport.violations == 0


def test_one_terminal_has_its_size_and_input_when_its_driver_is_ready():
    port = VirtioPort(console=True)
    port.resize(80, 25)
    console = ConsoleDriver(VirtioConsole([port]))
    assert console.multiport
    console.give(count=2)
    assert port.input(b"early") == 5 and console.read() == b"" and port.waiting == 5
    console.boot()
    assert console.read() == b"early"
    assert console.sizes == {0: (80, 25)} and console.consoles == {0}


def test_configuration_space():
    port = VirtioPort(console=True)
    port.resize(132, 43)
    driver = device_bench(VirtioConsole([port, VirtioPort("a"), VirtioPort("b")]))
    assert driver.device.device_id == 3
    assert driver.link.read_config(0, 8) == struct.pack("<HHI", 132, 43, 3)
    assert driver.has(vc.F_SIZE) and driver.has(vc.F_MULTIPORT) and driver.has(vc.F_EMERG_WRITE)
    assert len(driver.queues) == 8


def test_size_is_no_feature_of_a_byte_stream():
    driver = device_bench(VirtioConsole([VirtioPort("data")]))
    assert not driver.has(vc.F_SIZE) and driver.has(vc.F_MULTIPORT)


def test_resize_without_multiport_is_a_change_of_configuration():
    port = VirtioPort(console=True)
    driver = device_bench(VirtioConsole([port]), without=(vc.F_MULTIPORT,))
    port.resize(100, 30)
    port.resize(100, 30)
    assert driver.config_interrupts == 1
    assert driver.link.read_config(0, 4) == struct.pack("<HH", 100, 30)
    with pytest.raises(ConfigError):
        port.resize(1 << 16, 1)


def test_emergency_write_works_in_any_state():
    out = bytearray()
    driver = mmio_bench(VirtioConsole([VirtioPort(console=True, output=out.extend)], transport="mmio"), start=False)
    for byte in b"oops":
        driver.bench.mmio_write(driver.link.address + 0x108, 4, 0xABCD00 | byte)
    assert out == b"oops"
    driver.link.put(0x108, ord("!"), 1)
    assert out == b"oops!"


def test_a_paused_sink_gets_no_emergency_writes():
    out = bytearray()
    port = VirtioPort(console=True, output=out.extend)
    driver = device_bench(VirtioConsole([port]))
    port.pause()
    driver.link.write_config(8, b"x\0\0\0")
    assert out == b""


# Several ports


def test_ports_are_announced_with_their_names():
    _out, ports, console = stdio()
    console.boot()
    assert console.names == {0: "control", 1: "stdin", 2: "stdout", 3: "stderr"}
    assert console.hosts == dict.fromkeys(range(4), True)
    assert console.consoles == set() and all(port.guest_open for port in ports)
    assert [m[:3] for m in console.messages[:4]] == [(port, vc.DEVICE_ADD, 0) for port in range(4)]


def test_a_terminal_among_them_learns_that_it_is_one_and_its_size():
    port = VirtioPort(console=True)
    port.resize(80, 25)
    console = ConsoleDriver(VirtioConsole([port, VirtioPort("x")])).boot()
    assert console.consoles == {0} and console.sizes == {0: (80, 25)} and console.names == {1: "x"}
    port.resize(90, 30)
    console.listen()
    assert console.sizes == {0: (90, 30)}


def test_data_of_each_port_is_kept_apart():
    out, ports, console = stdio()
    console.boot()
    errors = bytearray()
    ports[3].output = errors.extend
    for n in range(100):
        console.write(b"%d " % n, 2)
        console.write(b"%d." % n, 3)
    assert out == b"".join(b"%d " % n for n in range(100))
    assert errors == b"".join(b"%d." % n for n in range(100))
    console.give(1)
    ports[1].input(b"in")
    ports[0].input(b"never, for it has no buffers")
    assert console.read(1) == b"in" and console.read(0) == b""


def test_input_waits_for_the_guest_to_open_the_port():
    port = VirtioPort("in")
    console = ConsoleDriver(VirtioConsole([port]))
    assert port.input(b"early ") == 6
    console.control(0, vc.DEVICE_READY)
    console.control(0, vc.PORT_READY)
    console.give()
    assert console.read() == b"" and port.waiting == 6
    console.control(0, vc.PORT_OPEN)
    assert console.read() == b"early " and port.waiting == 0


def test_input_waits_for_buffers_and_says_when_there_is_room():
    calls = []
    port = VirtioPort("in", limit=10, on_room=lambda: calls.append(port.room))
    console = ConsoleDriver(VirtioConsole([port])).boot()
    assert port.input(b"0123456789abcdef") == 10
    assert port.input(b"x") == 0 and port.room == 0 and calls == []
    console.give(count=1, size=4)
    assert console.read() == b"0123" and calls == [4]
    console.give(count=1, size=4)
    assert calls == [4]  # once, until `input` refuses again
    assert port.input(b"abcd") == 4


def test_end_of_file_comes_after_the_data():
    port = VirtioPort("in")
    console = ConsoleDriver(VirtioConsole([port])).boot()
    port.input(b"all of it")
    port.close()
    console.listen()
    assert console.hosts[0] and not port.open
    console.give(count=1, size=5)
    console.listen()
    assert console.read() == b"all o" and console.hosts[0]
    console.give(count=1, size=5)
    console.listen()
    assert console.read() == b"f it" and not console.hosts[0]
    with pytest.raises(ConfigError):
        port.input(b"more")
    port.reopen()
    console.listen()
    assert console.hosts[0] and port.input(b"!") == 1


def test_a_port_closed_before_the_driver_came_is_announced_so():
    port = VirtioPort("in")
    port.close()
    console = ConsoleDriver(VirtioConsole([port])).boot()
    assert console.hosts == {}  # never opened: a driver takes ports for closed until it is told
    port.reopen()
    console.listen()
    assert console.hosts == {0: True}


def test_the_host_hears_the_guest_open_and_close():
    heard = []
    console = ConsoleDriver(VirtioConsole([VirtioPort("x", on_open=heard.append)])).boot()
    console.control(0, vc.PORT_OPEN, 0)
    console.control(0, vc.PORT_OPEN, 0)
    console.control(0, vc.PORT_OPEN, 1)
    assert heard == [True, False, True]
    console.driver.link.set_status(0)
    assert heard == [True, False, True, False]


def test_a_paused_port_lets_the_guest_wait_and_loses_nothing():
    out = bytearray()
    port = VirtioPort("out")

    def take(data):
        out.extend(data)
        port.pause()

    port.output = take
    console = ConsoleDriver(VirtioConsole([port])).boot()
    buffers = [console.write(b"%d" % n) for n in range(5)]
    assert out == b"0" and [b.written for b in buffers] == [0, -1, -1, -1, -1]
    for _ in range(6):
        port.resume()
    console.transmit_queue(0).used()
    assert out == b"01234" and all(b.written == 0 for b in buffers)


def test_long_output_comes_in_pieces_and_in_turns():
    sizes = []
    port = VirtioPort("out", output=lambda data: sizes.append(len(data)))
    console = ConsoleDriver(VirtioConsole([port])).boot()
    address = console.driver.allocate(vc.PIECE)
    queue = console.transmit_queue(0)
    queue.table([(address, vc.PIECE, 0)])
    elements = [(address, vc.PIECE, 0)] * 40  # the same memory again and again
    table = console.driver.place(queue.table(elements), 16)
    queue.expose([(table, 16 * 40, 4)])
    queue.kick()
    assert sum(sizes) == vc.BUDGET and queue.take_used() is None
    while console.driver.run():
        pass
    assert sum(sizes) == 40 * vc.PIECE and max(sizes) <= vc.PIECE
    assert queue.take_used() is not None


def test_what_is_in_the_queue_at_the_end_is_drained():
    out = bytearray()
    port = VirtioPort("out", output=out.extend)
    console = ConsoleDriver(VirtioConsole([port])).boot()
    for n in range(10):
        console.transmit_queue(0).add([b"%d" % n])
    port.pause()
    console.device.close()
    assert out == b"0123456789"


def test_a_reset_keeps_what_waits_and_starts_the_conversation_anew():
    port = VirtioPort("in")
    console = ConsoleDriver(VirtioConsole([port])).boot()
    port.input(b"kept")
    console.driver.link.set_status(0)
    assert not port.guest_open
    again = ConsoleDriver.__new__(ConsoleDriver)
    again.__init__(console.device, join=lambda device, **_: console.driver)
    console.driver.start()
    for _ in range(8):
        again.queue(vc.CONTROL_RECEIVE).add([], [64])
    again.boot()
    again.give()
    assert again.read() == b"kept" and again.names == {0: "in"}


def test_a_queue_that_is_taken_back_takes_its_unfinished_chain_along():
    got = []
    port = VirtioPort("out", output=lambda data: (got.append(len(data)), port.pause()))
    console = ConsoleDriver(VirtioConsole([port]), memory=4 << 20).boot()
    console.write(bytes(vc.PIECE + 1))
    console.driver.transport.reset_queue(console.device.queues[1])
    port.resume()
    assert got == [vc.PIECE] and port.chain is None


def test_a_device_may_serve_one_machine_after_the_other():
    port = VirtioPort("x")
    first = ConsoleDriver(VirtioConsole([port])).boot()
    second = ConsoleDriver(first.device)
    assert not port.guest_open and port.input(b"for the second") == 14
    second.boot()
    second.give()
    assert second.names == {0: "x"} and second.read() == b"for the second"


# Drivers that do not follow the rules


def test_messages_wait_for_buffers_without_growing():
    ports = [VirtioPort(f"p{n}") for n in range(5)]
    console = ConsoleDriver(VirtioConsole(ports), buffers=0)
    for _ in range(50):
        console.control(0, vc.DEVICE_READY)
        for port in range(5):
            console.control(port, vc.PORT_READY)
            console.control(port, vc.PORT_OPEN)
            ports[port].close()
            ports[port].reopen()
    assert len(console.device._messages) == 15
    for _ in range(15):
        console.queue(vc.CONTROL_RECEIVE).add([], [64])
    console.queue(vc.CONTROL_RECEIVE).kick()
    console.listen()
    assert len(console.names) == 5 and console.hosts == dict.fromkeys(range(5), True)


def test_a_buffer_too_small_for_a_message_comes_back_empty():
    console = ConsoleDriver(VirtioConsole([VirtioPort("name")]), buffers=0)
    queue = console.queue(vc.CONTROL_RECEIVE)
    small = [queue.add([], [size]) for size in (4, 7)]
    queue.add([], [64])
    queue.kick()
    console.control(0, vc.DEVICE_READY)
    assert [buffer.written for buffer in small] == [0, 0]
    assert console.messages == [(0, vc.DEVICE_ADD, 0, b"")]


def test_ports_are_added_once():
    console = ConsoleDriver(VirtioConsole([VirtioPort("x")])).boot()
    count = len(console.messages)
    console.boot()
    assert len(console.messages) == count


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"short",
        struct.pack("<IHH", 0, vc.DEVICE_READY, 0),
        struct.pack("<IHH", 9, vc.PORT_READY, 1),
        struct.pack("<IHH", 0xFFFF_FFFF, vc.PORT_OPEN, 1),
        struct.pack("<IHH", 0, vc.PORT_READY, 0),
        struct.pack("<IHH", 0, vc.DEVICE_ADD, 1),
        struct.pack("<IHH", 0, 0xFFFF, 1),
        struct.pack("<IHH", 1, vc.PORT_OPEN, 1),
    ],
)
def test_senseless_messages_are_ignored(message):
    console = ConsoleDriver(VirtioConsole([VirtioPort("x"), VirtioPort("y")]))
    queue = console.queue(vc.CONTROL_TRANSMIT)
    queue.request([message] if message else [], [] if message else [4])
    assert console.device.active and not console.device.ports[1].guest_open
    console.boot()
    assert console.names == {0: "x", 1: "y"}


def test_without_multiport_other_queues_do_nothing():
    out = bytearray()
    ports = [VirtioPort(console=True, output=out.extend), VirtioPort("y", output=out.extend)]
    console = ConsoleDriver(VirtioConsole(ports), without=(vc.F_MULTIPORT,))
    console.write(b"no", 1)
    console.give(1)
    ports[1].input(b"no")
    assert console.read(1) == b""
    console.write(b"yes")
    assert out == b"yes"


def test_buffers_of_the_wrong_direction_are_harmless():
    out = bytearray()
    port = VirtioPort(console=True, output=out.extend)
    console = ConsoleDriver(VirtioConsole([port]), without=(vc.F_MULTIPORT,))
    console.transmit_queue(0).request([b"a"], [5])
    console.transmit_queue(0).request([], [5])
    console.receive_queue(0).add([b"readable"], [])
    console.give(count=1)
    port.input(b"in")
    assert console.read() == b"in" and out == b"a"


ACTIONS = st.one_of(
    st.tuples(st.just("control"), st.integers(0, 4), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("raw"), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("give"), st.integers(0, 2), st.integers(0, 3), st.integers(0, 20)),
    st.tuples(st.just("write"), st.integers(0, 2), st.binary(max_size=20)),
    st.tuples(st.just("input"), st.integers(0, 2), st.binary(max_size=20)),
    st.tuples(st.sampled_from(("close", "reopen", "pause", "resume", "listen")), st.integers(0, 2)),
    st.tuples(st.just("reset")),
)


@given(st.lists(ACTIONS, max_size=60), st.booleans())
def test_whatever_both_sides_do_streams_keep_their_order(actions, multiport):
    """Input arrives in order and once, output likewise, and no step raises."""
    written, read, sent, received = ([bytearray() for _ in range(3)] for _ in range(4))
    ports = [VirtioPort(f"p{n}", output=read[n].extend, limit=32) for n in range(3)]
    console = ConsoleDriver(VirtioConsole(ports), without=() if multiport else (vc.F_MULTIPORT,))
    lost = False
    for action, *values in actions:
        if len(console.driver.queues[0].outstanding) > 50:
            break
        if action == "control":
            console.control(*values)
        elif action == "raw":
            console.queue(vc.CONTROL_TRANSMIT).request([values[0]], [])
        elif action == "give":
            if len(console.receive_queue(values[0]).outstanding) + values[1] < 60:
                console.give(*values)
        elif action == "write" and values[1]:
            if len(console.transmit_queue(values[0]).outstanding) < 60:
                written[values[0]] += values[1]
                console.write(values[1], values[0])
        elif action == "input" and ports[values[0]].open:
            taken = ports[values[0]].input(values[1])
            sent[values[0]] += values[1][:taken]
        elif action == "reset":
            console.driver.start()
            lost = True
        elif action == "listen":
            console.listen()
        elif action in ("close", "reopen", "pause", "resume"):
            getattr(ports[values[0]], action)()
        for n in range(3):
            received[n] += console.read(n)
            assert len(console.device._messages) <= 3 * 4
            assert ports[n].waiting <= 32
            if not lost:
                assert written[n].startswith(read[n])
                assert sent[n].startswith(received[n])
    assert console.device.active


def test_names_and_numbers_of_ports_are_checked():
    with pytest.raises(ConfigError):
        VirtioConsole([])
    with pytest.raises(ConfigError):
        VirtioConsole([VirtioPort() for _ in range(32)])
    with pytest.raises(ConfigError):
        VirtioConsole([VirtioPort("a"), VirtioPort("a")])
    with pytest.raises(ConfigError):
        VirtioPort("a/b")
    port = VirtioPort("a")
    VirtioConsole([port])
    with pytest.raises(ConfigError):
        VirtioConsole([port])


def test_input_is_bounded_even_without_a_guest():
    port = VirtioPort("a")
    assert port.input(bytes(INPUT_LIMIT + 1)) == INPUT_LIMIT
    assert port.input(b"x") == 0
