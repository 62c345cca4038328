"""A shared folder, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar

    from pyhv.device import Device

CACHES = ("auto", "always", "none")
XATTR = ("none", "read", "write")
TAG_SIZE = 36
MAX_QUEUES = 16


@record(frozen=True)
class Share:
    """A folder of the host in the guest, by virtio-fs: `mount -t virtiofs TAG DIRECTORY`. Read-only unless `writable`.

    `cache`: for how long the guest trusts what it has read: "auto" a second, data while the file is the same; "always" as
    long as it runs, for folders that only the guest changes; "none" never. `xattr`: extended attributes are hidden, read, or
    written too. `submounts`: whether file systems mounted below are entered; those of the kernel's own (/proc, /sys) never
    are. `devices`: whether a guest may make device nodes. `queues` is the number of request queues. Raises ConfigError.
    """

    kind: ClassVar[str] = "share"
    main: ClassVar[str] = "path"
    aliases: ClassVar[Mapping[str, str]] = {"rw": "writable", "ro": "writable=no", "readonly": "writable=no"}
    unique: ClassVar[tuple[str, ...]] = ("tag",)

    path: str
    tag: str = "share"
    writable: bool = False
    cache: str = "auto"
    xattr: str = "read"
    submounts: bool = True
    devices: bool = False
    queues: int = 1
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.path or "\0" in self.path:
            raise ConfigError(f"share: path: {self.path!r} is not a folder's name")
        if not 0 < len(self.tag.encode(errors="replace")) <= TAG_SIZE or "\0" in self.tag or not self.tag.isprintable():
            raise ConfigError(f"share: tag: {self.tag!r} is not a name of 1 to {TAG_SIZE} bytes")
        if self.cache not in CACHES:
            raise ConfigError(f"share: cache: {self.cache!r} is not one of {', '.join(CACHES)}")
        if self.xattr not in XATTR:
            raise ConfigError(f"share: xattr: {self.xattr!r} is not one of {', '.join(XATTR)}")
        if self.devices and not self.writable:
            raise ConfigError("share: devices: 'yes' is not for a folder that is not writable")
        between("share", "queues", self.queues, 1, MAX_QUEUES)

    def build(self) -> Device:
        """The device. Raises ConfigError for a folder that is not there."""
        from pyhv.fs.server import Server
        from pyhv.virtio.fs import VirtioFs

        server = Server(
            self.path,
            writable=self.writable,
            cache=self.cache,
            xattr=self.xattr,
            submounts=self.submounts,
            devices=self.devices,
        )
        return VirtioFs(server, tag=self.tag, queues=self.queues, transport=self.transport)
