"""The virtio-fs device, through the model driver, and the description that makes it."""

import os
from struct import pack, unpack_from

import pytest
from fuse_client import ROOT, Client, FuseError, error_of, request
from hypothesis import given
from hypothesis import strategies as st

from pyhv import peripherals
from pyhv.errors import ConfigError
from pyhv.fs import fuse
from pyhv.fs.server import POLICIES, XATTR
from pyhv.peripherals import share
from pyhv.peripherals.share import Share
from pyhv.testing.virtio import device_bench, mmio_bench
from pyhv.virtio import fs
from pyhv.virtio.fs import VirtioFs

HIPRIO, REQUESTS = 0, 1


@pytest.fixture(params=[device_bench, mmio_bench])
def join(request, folder):
    """Make a driver for a device that shares the folder."""
    drivers = []

    def make(*, memory=8 << 20, packed=False, **options):
        device = Share(str(folder), transport="mmio", **options).build()
        driver = request.param(device, memory=memory, packed=packed)
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.device.close()


def carrier(driver, queue=REQUESTS, pieces=1):
    """Carry requests over a queue, header and body apart as Linux does, the reply's data in so many pieces."""

    def carry(message, room):
        data = [message[:40]] + ([message[40:]] if len(message) > 40 else [])
        left = room - 16
        space = [size for size in (16, *(left // pieces,) * (pieces - 1), left - left // pieces * (pieces - 1)) if size > 0]
        number = HIPRIO if message[4] in (fuse.FORGET, fuse.BATCH_FORGET) else queue
        return driver.queues[number].request(data, space)

    return carry


def test_identity(join):
    driver = join(tag="naïve", queues=3)
    assert driver.device.device_id == 26 and len(driver.queues) == 4
    config = driver.device.config()
    assert config == "naïve".encode().ljust(36, b"\0") + (3).to_bytes(4, "little")
    assert driver.link.read_config(0, 40) == config
    assert driver.device.features == 0


@pytest.mark.parametrize("packed", [False, True])
def test_files_through_queues(join, folder, packed):
    driver = join(writable=True, queues=2, packed=packed)
    one = Client(carrier(driver))
    two = Client(carrier(driver, queue=2, pieces=7), init=False)
    node = one.walk("dir/sub/deep")
    handle = two.open(node)
    assert two.read(node, handle, 7000, 3) == (folder / "dir/sub/deep").read_bytes()[3:7003]
    made, handle = one.create("new")
    assert two.write(made.node, handle, b"x" * 100_000, 5) == 100_000
    assert (folder / "new").read_bytes() == bytes(5) + b"x" * 100_000
    assert len(two.list(size=7000, plus=True)) == 10
    one.forget(node)
    with pytest.raises(FuseError):
        one.getattr(node)
    assert driver.transport.violations == 0 and driver.device.active


def test_the_largest_requests(join, folder):
    client = Client(carrier(join(writable=True), pieces=256))
    entry, handle = client.create("large")
    data = os.urandom(1 << 20)
    assert client.write(entry.node, handle, data) == 1 << 20
    assert client.read(entry.node, handle, 1 << 20) == data


def test_a_reset_forgets_the_guest(join):
    driver = join()
    client = Client(carrier(driver))
    client.open(client.walk("dir/inner.txt"))
    server = driver.device.server
    assert server.tree.held > 0
    driver.link.set_status(0)
    assert server.tree.held == 0 and len(server.tree.nodes) == 1 and not server.handles.open
    driver.start()
    assert error_of(Client(carrier(driver), init=False).getattr, ROOT) == "EIO"
    Client(carrier(driver)).walk("dir/inner.txt")


def test_requests_without_room_come_back_empty(join):
    driver = join()
    client = Client(carrier(driver))
    for room in ([], [8], [15], [8, 7]):
        assert driver.queues[REQUESTS].request([request(fuse.LOOKUP, ROOT, b"dir\0")], room) == b""
    assert driver.queues[REQUESTS].request([], [100]) == b""
    assert driver.queues[REQUESTS].request([b"short"], [100]) == b""
    client.lookup("dir")
    assert driver.device.active


@given(
    st.lists(
        st.tuples(
            st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=4)
        )
    )
)
def test_any_chains(tmp_path_factory, sent):
    place = tmp_path_factory.getbasetemp() / "chains"
    place.mkdir(exist_ok=True)
    driver = device_bench(Share(str(place), writable=True).build())
    try:
        Client(carrier(driver), init=True)
        for readable, writable in sent:
            reply = driver.queues[REQUESTS].request(readable, writable)
            assert not reply or len(reply) == unpack_from("<I", reply.ljust(16, b"\0"))[0]
        assert driver.device.active
    finally:
        driver.device.close()
    assert os.listdir(place) == []


def test_a_driver_with_many_requests(join):
    """All are answered, in order, a few before others have their turn."""
    driver = join()
    client = Client(carrier(driver))
    queue = driver.queues[REQUESTS]
    body = request(fuse.GETATTR, ROOT, bytes(16))
    waiting = [queue.add([body], [120]) for _ in range(queue.size // 2 - 1)]
    queue.kick()
    done = [queue.used()]
    while driver.run():
        done.append(queue.used())
    assert {len(turn) for turn in done[:-1]} == {fs.TURN}
    assert [buffer for turn in done for buffer in turn] == waiting
    assert {buffer.written for buffer in waiting} == {120}
    client.lookup("dir")


def test_descriptions(folder):
    description = peripherals.parse("share", f"{folder},rw,tag=home,cache=always,submounts=no")
    assert description == Share(str(folder), tag="home", writable=True, cache="always", submounts=False)
    assert Share(str(folder)) == peripherals.parse("share", f"path={folder}")
    assert not Share(str(folder)).writable
    assert peripherals.from_document(peripherals.to_document(description)) == description
    assert hash(description)
    assert (tuple(POLICIES), XATTR) == (share.CACHES, share.XATTR)
    assert (share.TAG_SIZE, share.MAX_QUEUES) == (fs.TAG_SIZE, fs.MAX_QUEUES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": ""}, "share: path: '' is not"),
        ({"path": "a\0b"}, "share: path: "),
        ({"tag": ""}, "share: tag: '' is not a name of 1 to 36 bytes"),
        ({"tag": "x" * 37}, "share: tag: "),
        ({"tag": "é" * 19}, "share: tag: "),
        ({"tag": "a\nb"}, "share: tag: "),
        ({"cache": "never"}, "share: cache: 'never' is not one of auto, always, none"),
        ({"xattr": "yes"}, "share: xattr: 'yes' is not one of none, read, write"),
        ({"queues": 0}, "share: queues: '0' is not from 1 to 16"),
        ({"queues": True}, "share: queues: True is not a number"),
        ({"writable": "yes"}, "share: writable: 'yes' is not true or false"),
        ({"devices": True}, "share: devices: 'yes' is not"),
        ({"transport": "usb"}, "share: transport: 'usb' is not one of pci, mmio"),
    ],
)
def test_descriptions_that_are_none(fields, message):
    with pytest.raises(ConfigError) as caught:
        Share(**{"path": "/srv", **fields})
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"share: path: .* cannot be shared: No such file"):
        Share(str(tmp_path / "none")).build()


def test_the_device_checks_as_well(folder):
    from pyhv.fs.server import Server

    server = Server(str(folder))
    try:
        for options in ({"tag": ""}, {"tag": "x" * 37}, {"queues": 0}, {"queues": 99}, {"transport": "usb"}):
            with pytest.raises(ConfigError):
                VirtioFs(server, **options)
    finally:
        server.close()


def test_bodies_are_read_once_their_length_is_known(join):
    """A WRITE whose chain holds less than it says."""
    driver = join(writable=True)
    client = Client(carrier(driver))
    entry, handle = client.create("new")
    head = pack("<QQIIQII", handle, 0, 1 << 20, 0, 0, 0, 0)
    assert error_of(client.call, fuse.WRITE, entry.node, head + bytes(5000), 8) == "EINVAL"
