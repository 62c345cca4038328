"""The entropy device, through the model driver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import device_bench, mmio_bench

from pyhv.errors import ConfigError
from pyhv.peripherals.entropy import Entropy
from pyhv.virtio.entropy import MAX_REQUEST, VirtioEntropy

SECOND = 1_000_000_000


def counting(size):
    """What the bench's platform gives."""
    return bytes(i & 0xFF for i in range(size))


@pytest.mark.parametrize("join", [device_bench, mmio_bench])
@pytest.mark.parametrize("packed", [False, True])
def test_buffers_are_filled(join, packed):
    driver = join(VirtioEntropy(transport="mmio"), packed=packed)
    assert driver.queues[0].request([], [16]) == counting(16)
    assert driver.queues[0].request([], [5, 0, 7]) == counting(12)
    assert driver.device.given == 28
    assert driver.transport.violations == 0


def test_identity():
    driver = device_bench(VirtioEntropy())
    assert driver.device.device_id == 4
    assert driver.device.config() == b"" and len(driver.queues) == 1


def test_a_request_is_bounded():
    driver = device_bench(VirtioEntropy(), memory=4 << 20)
    assert driver.queues[0].request([], [MAX_REQUEST, MAX_REQUEST]) == counting(MAX_REQUEST)


def test_what_is_no_request_comes_back_empty():
    driver = device_bench(VirtioEntropy())
    assert driver.queues[0].request([b"readable"], []) == b""
    assert driver.queues[0].request([b"readable"], [4]) == counting(4)
    assert driver.device.active


def test_a_rate_holds_requests_until_the_next_period():
    driver = device_bench(VirtioEntropy(rate=20, period_ns=SECOND))
    queue, clock = driver.queues[0], driver.bench.clock
    assert queue.request([], [12]) == counting(12)
    assert queue.request([], [12]) == counting(8)  # what was left
    waiting = [queue.add([], [12]) for _ in range(3)]
    queue.kick()
    assert queue.used() == []
    clock.advance(SECOND - 1)
    assert queue.used() == []
    clock.advance(1)
    assert [buffer.written for buffer in queue.used()] == [12, 8]
    clock.advance(SECOND)
    assert queue.used() == [waiting[2]] and waiting[2].written == 12
    assert driver.interrupts[0] == 4
    assert clock.next_deadline() is None


def test_a_rate_gives_no_credit_for_idle_time():
    driver = device_bench(VirtioEntropy(rate=10, period_ns=SECOND))
    driver.bench.clock.advance(100 * SECOND)
    assert driver.queues[0].request([], [64]) == counting(10)


def test_a_reset_forgets_who_waits():
    driver = device_bench(VirtioEntropy(rate=1, period_ns=SECOND))
    queue = driver.queues[0]
    queue.request([], [1])
    queue.add([], [1])
    queue.kick()
    driver.link.set_status(0)
    driver.bench.clock.advance(10 * SECOND)
    assert queue.used() == [] and driver.bench.clock.next_deadline() is None
    driver.start()
    assert driver.queues[0].request([], [4]) == counting(1)


def test_a_device_may_serve_one_machine_after_the_other():
    device = VirtioEntropy(rate=1, period_ns=SECOND)
    first = device_bench(device)
    first.bench.clock.advance(5 * SECOND)
    first.queues[0].request([], [1])
    first.queues[0].add([], [1])
    first.queues[0].kick()
    assert device_bench(device).queues[0].request([], [4]) == counting(1)


REQUESTS = st.lists(st.tuples(st.lists(st.integers(0, 40), max_size=3), st.integers(0, 2 * SECOND)), max_size=20)


@given(REQUESTS, st.integers(0, 50))
def test_never_more_than_the_rate(requests, rate):
    driver = device_bench(VirtioEntropy(rate=rate, period_ns=SECOND))
    queue = driver.queues[0]
    for sizes, pause in requests:
        queue.add([b"?"] if not sizes else [], sizes)
        queue.kick()
        driver.bench.clock.advance(pause)
    buffers = queue.used()
    given_bytes = sum(max(buffer.written, 0) for buffer in buffers)
    assert given_bytes == driver.device.given
    if rate:
        assert given_bytes <= rate * (2 + driver.bench.clock.now_ns() // SECOND)
    assert driver.device.active


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": -1}, "entropy: rate: '-1' is not from 0 to 1099511627776 bytes"),
        ({"rate": True}, "entropy: rate: True is not a number"),
        ({"period": 0}, "entropy: period: '0' is not from 1 to 3600000 milliseconds"),
        ({"transport": "isa"}, "entropy: transport: 'isa' is not one of pci, mmio"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Entropy(**fields)
    assert str(error.value) == message


def test_descriptions_build_the_device():
    device = Entropy(rate=7, period=20, transport="mmio").build()
    assert (device.rate, device.period_ns, device.transport) == (7, 20_000_000, "mmio")
    with pytest.raises(ConfigError):
        VirtioEntropy(rate=-1)
