"""The balloon: pages that really go back, targets, statistics, reports, large host pages, and drivers that lie."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_driver import DirectLink, DirectTransport, VirtioDriver, mmio_bench

from pyhv.errors import ConfigError
from pyhv.memory import MemoryBacking, MemoryRegion, allocate
from pyhv.peripherals.balloon import Balloon
from pyhv.testing import DeviceBench
from pyhv.testing.virtio import SplitDriver
from pyhv.virtio import balloon as vb
from pyhv.virtio import ids
from pyhv.virtio.balloon import VirtioBalloon
from pyhv.virtio.balloon_stats import NAMES, parse_statistics

MIB = 1 << 20
BASE = 0x1000_0000
FIRST = BASE // 4096
SECOND = 1_000_000_000


def ram(size=MIB):
    region = allocate(BASE, size, MemoryBacking())
    region.buffer[:] = b"\x55" * size
    return region


class BalloonDriver(VirtioDriver):
    """A driver whose machine has RAM that the host can take back, from BASE, full of 0x55."""

    def __init__(self, *, region=None, start=None, **options):
        self.region = region or ram()
        bench = DeviceBench()
        bench.memory.add(self.region)
        device = VirtioBalloon(**options)
        transport = DirectTransport(device, bench.platform)
        device.connect(transport)
        super().__init__(bench, device, DirectLink(transport))
        if start is not False:
            self.start(**(start or {}))

    def pages(self, queue, numbers):
        self.queues[queue].request([struct.pack(f"<{len(numbers)}I", *numbers)])

    def inflate(self, *numbers):
        self.pages(vb.INFLATE, numbers)

    def deflate(self, *numbers):
        self.pages(vb.DEFLATE, numbers)

    def held(self):
        """Bytes of host memory behind the RAM."""
        return os.fstat(self.region.fd).st_blocks * 512

    def byte(self, page):
        return self.region.buffer[(page - FIRST) * 4096]


def test_inflating_gives_memory_back_to_the_host():
    driver = BalloonDriver()
    assert driver.held() == MIB
    driver.inflate(FIRST + 9, FIRST + 7, FIRST + 8, FIRST + 200)
    assert driver.held() == MIB - 4 * 4096
    assert driver.device.released == 4 * 4096
    driver.deflate(FIRST + 7, FIRST + 8)
    driver.region.buffer[7 * 4096 + 1] = 1
    assert driver.held() == MIB - 3 * 4096
    assert [driver.byte(FIRST + n) for n in (6, 7, 8, 9, 10)] == [0x55, 0, 0, 0, 0x55]


@pytest.mark.parametrize("packed", [False, True])
def test_over_a_transport(packed):
    driver = mmio_bench(VirtioBalloon(size=MIB // 2, transport="mmio"), packed=packed)
    assert driver.device.device_id == 5
    assert driver.link.read_config(0, 16) == struct.pack("<IIII", 128, 0, 0, 0)
    driver.queues[vb.INFLATE].request([struct.pack("<I", 1)])
    assert driver.transport.violations == 0


def test_observers_of_memory_are_told():
    driver = BalloonDriver()
    heard = []
    driver.memory.observe_writes(lambda address, length: heard.append((address, length)))
    driver.inflate(FIRST, FIRST + 1)
    assert (BASE, 0x2000) in heard


def test_pages_that_are_no_ram_are_ignored():
    driver = BalloonDriver()
    driver.inflate(0xFFFF_FFFF, 0x8_0000, FIRST + 256, FIRST - 1, FIRST)
    assert driver.device.released == 4096 and driver.device.ignored == 4
    assert driver.held() == MIB - 4096 and driver.device.active


def test_a_request_of_any_length_is_taken_in_turns():
    region = ram(64 * MIB)
    driver = BalloonDriver(region=region)
    numbers = struct.pack("<16384I", *range(FIRST, FIRST + 16384))
    buffer = driver.queues[vb.INFLATE].add([numbers])
    driver.queues[vb.INFLATE].kick()
    assert driver.queues[vb.INFLATE].used() == [] and 0 < driver.device.released < 64 * MIB
    while driver.run():
        pass
    assert driver.queues[vb.INFLATE].used() == [buffer] and driver.held() == 0


def test_the_target_follows_the_host():
    driver = BalloonDriver(size=16 * 4096)
    assert driver.device.target == 16 * 4096
    driver.device.set_target(64 * 4096)
    driver.device.set_target(64 * 4096)
    assert driver.config_interrupts == 1
    assert driver.link.read_config(0, 4) == struct.pack("<I", 64)
    driver.link.write_config(4, struct.pack("<I", 60))
    assert driver.device.actual == 60 * 4096


@pytest.mark.parametrize("size", [-4096, 1, 4095, 1 << 40])
def test_targets_are_checked(size):
    driver = BalloonDriver()
    with pytest.raises(ConfigError, match="balloon: size: "):
        driver.device.set_target(size)


def test_only_its_fields_of_the_configuration_are_the_drivers():
    driver = BalloonDriver(size=4096, start=False)

    def write_all(byte):
        for offset in range(0, 16, 4):
            driver.link.write_config(offset, bytes((byte,)) * 4)

    write_all(0x11)  # before DRIVER_OK: the poison
    assert driver.link.read_config(0, 8) == struct.pack("<II", 1, 0)
    assert driver.link.read_config(8, 8) == struct.pack("<II", 0, 0x1111_1111)
    driver.start()
    write_all(0x22)
    driver.link.write_config(5, b"\x33")
    assert driver.link.read_config(0, 8) == struct.pack("<II", 1, 0x2222_3322)
    assert driver.link.read_config(8, 8) == struct.pack("<II", 0, 0x1111_1111)
    assert driver.device.actual == 0x2222_3322 * 4096


# Statistics


def stats(*values):
    return b"".join(struct.pack("<HQ", tag, value) for tag, value in values)


def test_statistics_on_request():
    answers = []
    driver = BalloonDriver(on_statistics=answers.append)
    queue = driver.queues[vb.STATS]
    first = queue.add([stats((4, 7 * MIB), (5, 16 * MIB))])
    queue.kick()
    assert driver.device.statistics == {"free": 7 * MIB, "total": 16 * MIB} and queue.used() == []
    driver.device.request_statistics()
    driver.device.request_statistics()  # one request, until it is answered
    assert queue.used() == [first]
    queue.add([stats((4, 6 * MIB), (0xFFFF, 1), (2, 3))])
    queue.kick()
    assert driver.device.statistics == {"free": 6 * MIB, "major_faults": 3}
    assert len(queue.used()) == 1  # the second request
    assert len(answers) == 2


def test_statistics_every_period():
    driver = BalloonDriver(statistics_period_ns=SECOND)
    queue = driver.queues[vb.STATS]
    for n in range(5):
        queue.add([stats((4, n))])
        queue.kick()
        assert driver.device.statistics == {"free": n}
        used = len(queue.used())
        driver.bench.clock.advance(SECOND)
        assert used + len(queue.used()) >= 1
    driver.link.set_status(0)
    assert driver.bench.clock.next_deadline() is None


def test_a_first_buffer_from_before_the_driver_was_done():
    """Linux adds it, and notifies, during its set-up."""
    driver = BalloonDriver(start=False)
    start_with(driver, 0, 1, 4)
    driver.link.set_status(0)
    added = []

    def add_first():
        queue = SplitDriver(driver, vb.STATS, 2)
        added.append((queue, queue.add([stats((4, 9))])))

    start_with(driver, 0, 1, 4, before=add_first)
    assert driver.device.statistics == {"free": 9}
    driver.device.request_statistics()
    assert added[0][0].used() == [added[0][1]]


def test_a_driver_with_more_than_one_buffer_gets_the_older_back():
    driver = BalloonDriver()
    queue = driver.queues[vb.STATS]
    first = queue.add([stats((4, 1))])
    queue.kick()
    queue.add([stats((4, 2))])
    queue.kick()
    assert queue.used() == [first] and driver.device.statistics == {"free": 2}


@given(st.binary(max_size=200))
def test_any_statistics_are_read(data):
    found = parse_statistics(data)
    assert set(found) <= set(NAMES) and all(0 <= value < 1 << 64 for value in found.values())
    assert len(found) <= len(data) // 10


# Free page reporting


def report(driver, *ranges, queue=vb.REPORTING):
    queue = driver.queues[queue]
    queue.expose([(address, length, 2) for address, length in ranges])
    queue.kick()
    assert queue.take_used() is not None


def test_reported_pages_go_back():
    driver = BalloonDriver()
    report(driver, (BASE, 0x4000), (BASE + 0x8000, 0x1000))
    assert driver.held() == MIB - 0x5000 and driver.byte(FIRST) == 0
    assert driver.device.released == 0x5000


def test_reported_parts_of_pages_stay():
    driver = BalloonDriver()
    report(driver, (BASE + 0x800, 0x1000))
    assert driver.held() == MIB and driver.device.released == 0


def start_with(driver, *indices, poison=0, before=lambda: None):
    """Start the driver with some of the queues only; `before()` is called when all but DRIVER_OK is done."""
    link = driver.link
    for status in (0, 1, 3):
        link.set_status(status)
    driver.negotiated = link.features() & ~(1 << ids.RING_PACKED)
    link.set_features(driver.negotiated)
    link.set_status(11)
    link.write_config(12, struct.pack("<I", poison))
    driver.queues = [
        SplitDriver(driver, index, link.queue_limit(index)) if index in indices else None for index in range(5)
    ]
    before()
    link.set_status(15)


@pytest.mark.parametrize(("poison", "released"), [(0, 0x1000), (0xAAAA_AAAA, 0)])
def test_pages_that_must_keep_their_poison_are_left_alone(poison, released):
    driver = BalloonDriver(start=False)
    start_with(driver, 0, 1, 2, 4, poison=poison)
    report(driver, (BASE, 0x1000))
    assert driver.device.released == released
    assert driver.byte(FIRST) == (0x55 if poison else 0)


def test_poison_without_the_feature_means_nothing():
    driver = BalloonDriver(start={"without": (vb.F_PAGE_POISON,)})
    driver.device._poison = 7
    report(driver, (BASE, 0x1000))
    assert driver.device.released == 0x1000


def test_a_driver_that_numbers_only_the_queues_it_has():
    """Linux: with no free page hinting, its reports come on queue 3."""
    driver = BalloonDriver(start=False)
    start_with(driver, 0, 1, 2, 3)
    report(driver, (BASE, 0x1000), queue=3)
    assert driver.device.released == 0x1000
    driver.queues[2].add([stats((4, 5))])
    driver.queues[2].kick()
    assert driver.device.statistics == {"free": 5}


def test_queues_of_features_that_were_not_taken_do_nothing():
    driver = BalloonDriver(start={"without": (vb.F_PAGE_REPORTING, vb.F_STATS_VQ)})
    report(driver, (BASE, 0x1000))
    driver.queues[vb.STATS].request([stats((4, 5))])
    assert driver.device.released == 0 and driver.device.statistics == {}


# Large pages of the host


def large(gone, size=8 * MIB):
    """RAM whose pages have 2 MiB, without a pool of them on this host."""

    def take(offset, length):
        gone.append((offset // (2 * MIB), length // (2 * MIB)))
        return True

    return MemoryRegion(BASE, memoryview(bytearray(size)), page_size=2 * MIB, discard=take)


def test_a_large_page_goes_once_all_of_it_is_in_the_balloon():
    gone = []
    driver = BalloonDriver(region=large(gone))
    driver.inflate(*range(FIRST + 512, FIRST + 1023))
    assert gone == [] and driver.device.ignored == 0
    driver.inflate(FIRST + 1023, FIRST + 1024)
    assert gone == [(1, 1)] and driver.device.released == 2 * MIB
    driver.deflate(FIRST + 600)
    driver.inflate(FIRST + 600)
    assert gone == [(1, 1)] * 2


def test_a_page_taken_back_keeps_its_large_page():
    gone = []
    driver = BalloonDriver(region=large(gone))
    driver.inflate(*range(FIRST, FIRST + 511))
    driver.deflate(FIRST + 3)
    driver.inflate(FIRST + 511)
    assert gone == []
    driver.link.set_status(0)
    driver.start()
    driver.inflate(FIRST + 3)
    assert gone == []  # the rest was another driver's


def test_without_telling_first_parts_never_wait_for_each_other():
    gone = []
    driver = BalloonDriver(region=large(gone), start={"without": (vb.F_MUST_TELL_HOST,)})
    driver.inflate(*range(FIRST, FIRST + 512))
    assert gone == []


NUMBERS = st.lists(st.integers(FIRST - 2, FIRST + 2050) | st.integers(0, 0xFFFF_FFFF), max_size=30)


WHOLE = st.integers(0, 4).map(lambda n: list(range(FIRST + n * 512, FIRST + n * 512 + 512)))


@given(st.lists(st.tuples(st.booleans(), NUMBERS | WHOLE), max_size=12))
def test_a_large_page_goes_only_when_no_part_of_it_is_out(moves):
    gone = []
    driver = BalloonDriver(region=large(gone))
    inside = set()
    for inflate, numbers in moves:
        before = len(gone)
        if numbers:
            driver.pages(vb.INFLATE if inflate else vb.DEFLATE, numbers)
        inside = inside | set(numbers) if inflate else inside - set(numbers)
        for first, count in gone[before:]:
            assert count == 1
            assert all(FIRST + first * 512 + n in inside for n in range(512))
    full = sum(all(FIRST + page * 512 + n in inside for n in range(512)) for page in range(4))
    assert full <= len(gone)


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40), st.integers(0, 64)), max_size=30))
def test_whatever_a_driver_sends_the_device_goes_on(requests):
    driver = BalloonDriver()
    for index, data, size in requests:
        if len(driver.queues[index].free) < 2:
            continue
        driver.queues[index].add([data] if data else [], [size] if size or not data else [])
        driver.queues[index].kick()
        driver.run()
        driver.queues[index].used()
    assert driver.device.active
    driver.link.set_status(0)
    assert driver.device.actual == 0


def test_a_device_may_serve_one_machine_after_the_other():
    first = BalloonDriver(statistics_period_ns=SECOND)
    first.link.write_config(4, b"\1\0\0\0")
    bench = DeviceBench()
    transport = DirectTransport(first.device, bench.platform)
    first.device.connect(transport)
    assert first.device.actual == 0 and first.bench.clock.next_deadline() is None
    second = VirtioDriver(bench, first.device, DirectLink(transport))
    second.start()
    assert bench.clock.next_deadline() == SECOND


# Descriptions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 4095}, "balloon: size: '4095' is not a multiple of 4096 below 16T"),
        ({"size": "many"}, "balloon: size: 'many' is not a size; use a number with an optional K, M, G or T, as in 256M"),
        ({"reporting": 1}, "balloon: reporting: 1 is not true or false"),
        ({"statistics": -1}, "balloon: statistics: '-1' is not from 0 to 86400000 milliseconds"),
    ],
)
def test_descriptions_are_checked(fields, message):
    with pytest.raises(ConfigError) as error:
        Balloon(**fields)
    assert str(error.value) == message


def test_descriptions_build_the_device():
    device = Balloon("64K", deflate_on_oom=True, reporting=False, statistics=10).build()
    assert device.target == 0x10000
    assert device.features >> vb.F_DEFLATE_ON_OOM & 1 and not device.features >> vb.F_PAGE_REPORTING & 1


def test_a_balloon_larger_than_the_guest_is_refused():
    with pytest.raises(ConfigError, match="balloon: size: "):
        BalloonDriver(size=1 << 32)
