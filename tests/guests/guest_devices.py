"""The devices of the virtio guests, made in a directory of the run's own, and what is to be found there afterwards.

Nothing here needs pytest: the tests in the rig use it, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyhv
from pyhv.net.echo import EchoHost

SECTOR = 512
SECTORS = 2048
FIRST_SECTOR = b"hello from the host\n".ljust(SECTOR, b"\0")
OTHER_SECTORS = bytes(range(1, 256)) * 8
WRITTEN = range(8 * SECTOR, 24 * SECTOR)


def image_of(directory: Path, transport: str) -> Path:
    """Where a run has the disk of this transport."""
    return directory / f"{transport}.img"


def original() -> bytes:
    """What a disk contains at first."""
    return (FIRST_SECTOR + OTHER_SECTORS * (SECTORS * SECTOR // len(OTHER_SECTORS) + 1))[: SECTORS * SECTOR]


def disk(directory: Path, transport: str) -> pyhv.Disk:
    image = image_of(directory, transport)
    image.write_bytes(original())
    return pyhv.Disk(str(image), serial="pyhv-disk", transport=transport)


def net(directory: Path, transport: str) -> pyhv.Net:
    return pyhv.Net.peer(EchoHost("10.0.2.2"), mac="02:00:00:00:00:15", transport=transport)


def entropy(directory: Path, transport: str) -> pyhv.Entropy:
    return pyhv.Entropy(transport=transport)


def readonly_disk(directory: Path, transport: str) -> pyhv.Disk:
    image = directory / f"{transport}-readonly.img"
    image.write_bytes(original())
    return pyhv.Disk(str(image), readonly=True, queues=3, transport=transport)


def overlay_disk(directory: Path, transport: str) -> pyhv.Disk:
    image = directory / f"{transport}-overlay.img"
    image.write_bytes(original())
    return pyhv.Disk(str(image), overlay=True, transport=transport)


def console(directory: Path, transport: str) -> pyhv.Console:
    return pyhv.Console(output=str(directory / f"{transport}.console"), transport=transport)


def balloon(directory: Path, transport: str) -> pyhv.Balloon:
    return pyhv.Balloon(transport=transport)


def share(directory: Path, transport: str) -> pyhv.Share:
    folder = directory / f"{transport}.share"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(20_000))
    (folder / "folder").mkdir()
    return pyhv.Share(str(folder), tag=transport, writable=True, transport=transport)


def vsock(directory: Path, transport: str) -> pyhv.Vsock:
    return pyhv.Vsock(str(directory / f"{transport}.vsock"), transport=transport)


Maker = Callable[[Path, str], Any]

BASIC: tuple[Maker, ...] = (disk, net, entropy)
OTHERS: tuple[Maker, ...] = (readonly_disk, overlay_disk, console, balloon, share, vsock)


def check_written(directory: Path, transport: str) -> None:
    """The guest wrote its pattern where its README says, and nothing anywhere else."""
    found, expected = image_of(directory, transport).read_bytes(), bytearray(original())
    for at in range(len(WRITTEN)):
        expected[WRITTEN[at]] = (at * 7 + (at >> 8) * 13 + 5) & 0xFF
    assert len(found) == len(expected)
    differing = [sector for sector in range(SECTORS) if _sector(found, sector) != _sector(expected, sector)]
    assert not differing, f"sectors {differing} of the image are not what the guest should have left there"


def check_size(directory: Path, transport: str) -> None:
    """Whatever the guest did, the image is as long as it was, and the first sector is the host's."""
    found = image_of(directory, transport).read_bytes()
    assert len(found) == SECTORS * SECTOR


def check_confined(directory: Path, transport: str) -> None:
    """A shared folder's guest left nothing beside the folder, and the read-only images as they were."""
    images = [f"{transport}-readonly.img", f"{transport}-overlay.img"]
    found = sorted(path.name for path in directory.iterdir())
    assert found == sorted([*images, f"{transport}.console", f"{transport}.share"])
    for name in images:
        assert (directory / name).read_bytes() == original()


def _sector(image: bytes | bytearray, sector: int) -> bytes:
    return bytes(image[sector * SECTOR : (sector + 1) * SECTOR])
