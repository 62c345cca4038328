"""The tables of the virtio reference name what there is."""

from documents import ROOT, table

from pyhv.testing.virtio import SplitDriver, VirtioDriver, device_bench
from pyhv.virtio.chain import Chain
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.queue import VirtQueue

VIRTIO = ROOT / "docs" / "reference" / "virtio.md"
FROM_DEVICE = {"attach", "close", "connect", "link", "live", "label", "name", "platform", "reset"}


class Nothing(VirtioDevice):
    device_id = 42


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_device():
    rows = {row[0] for row in table(VIRTIO, "## VirtioDevice")}
    assert rows == public(dir(VirtioDevice)) - FROM_DEVICE


def test_the_queue():
    rows = {row[0] for row in table(VIRTIO, "## Queues")}
    assert rows <= public(dir(VirtQueue)) | {"index", "size", "malformed"}


def test_the_driver_of_tests():
    rows = {row[0] for row in table(VIRTIO, "`without=(BIT, ...)`, and `start=False`.\n")}
    assert rows and rows <= public(dir(VirtioDriver)) | public(vars(device_bench(Nothing())))
    rows = {row[0] for row in table(VIRTIO, "| `run` | lets events of the host happen |\n")}
    assert rows and rows <= public(dir(SplitDriver))


def test_the_chain():
    rows = {row[0] for row in table(VIRTIO, "## Chains")}
    assert rows <= public(dir(Chain))
