"""The tables of the virtio reference name what there is."""

from documents import ROOT, table

from pyhv.virtio.chain import Chain
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.queue import VirtQueue

VIRTIO = ROOT / "docs" / "reference" / "virtio.md"
FROM_DEVICE = {"attach", "close", "connect", "link", "live", "label", "name", "platform", "reset"}


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_device():
    rows = {row[0] for row in table(VIRTIO, "## VirtioDevice")}
    assert rows == public(dir(VirtioDevice)) - FROM_DEVICE


def test_the_queue():
    rows = {row[0] for row in table(VIRTIO, "## Queues")}
    assert rows <= public(dir(VirtQueue)) | {"index", "size", "malformed"}


def test_the_chain():
    rows = {row[0] for row in table(VIRTIO, "## Chains")}
    assert rows <= public(dir(Chain))
