"""A disk, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

    from pyhv.device import Device

FORMATS = ("raw", "qcow2")
MAX_QUEUES = 256
MAX_SERIAL = 20


@record(frozen=True)
class Disk:
    """A virtio disk (Linux: /dev/vda, ...) over an image: a file, or a block device of the host.

    - `format`: "raw" or "qcow2"; what the image contains is never looked at to find out.
    - `readonly` (in text also `ro`): several machines may share the image.
    - `overlay`: the image is only read; what the guest writes stays in memory and is forgotten at the end.
    - `backing`: a qcow2 image may stand on other files, whose names are in it.
    - `serial`: up to 20 characters; `queues`: request queues, to be used by as many vCPUs at once.

    An image is locked while a machine has it. Raises ConfigError.
    """

    kind: ClassVar[str] = "disk"
    main: ClassVar[str] = "path"
    aliases: ClassVar[dict[str, str]] = {"ro": "readonly", "rw": "readonly=no"}

    path: str
    readonly: bool = False
    format: str = "raw"
    overlay: bool = False
    backing: bool = False
    serial: str = ""
    queues: int = 1
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.path:
            raise ConfigError("disk: path: '' is not a file")
        if self.format not in FORMATS:
            raise ConfigError(f"disk: format: {self.format!r} is not one of {', '.join(FORMATS)}")
        if self.backing and self.format != "qcow2":
            raise ConfigError(f"disk: backing: an image of format {self.format!r} has no backing file")
        if not self.serial.isascii() or not self.serial.isprintable() or len(self.serial) > MAX_SERIAL:
            raise ConfigError(f"disk: serial: {self.serial!r} is not ASCII of up to {MAX_SERIAL} characters")
        between("disk", "queues", self.queues, 1, MAX_QUEUES)

    @staticmethod
    def check_text(values: Mapping[str, Any]) -> None:
        """Raises ConfigError where the fields of a text leave open what a file is whose name says qcow2."""
        path = values.get("path", "")
        if "format" not in values and path.endswith(".qcow2"):
            raise ConfigError(f"disk: format: missing for {path!r}; say format=qcow2, or format=raw if that is what it is")

    def build(self) -> Device:
        """The device, over the opened image."""
        from pyhv.block.open import open_image
        from pyhv.virtio.block import VirtioBlock

        image = open_image(
            self.path, self.format, readonly=self.readonly, overlay=self.overlay, backing=self.backing
        )
        return VirtioBlock(image, serial=self.serial, queues=self.queues, transport=self.transport)
