"""Persistent memory, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device


@record(frozen=True)
class Pmem:
    """A file as memory that outlives the machine (Linux: /dev/pmem0, ...); its size is a multiple of 2 MiB.

    - `readonly` (in text also `ro`): the guest cannot write there, and several machines may share the file.
    - `overlay`: the file is only read; what the guest writes is forgotten at the end.

    A file that is written gets all of its storage at the start, so that the host cannot run out of it later. It is locked
    while a machine has it. Raises ConfigError.
    """

    kind: ClassVar[str] = "pmem"
    main: ClassVar[str] = "path"
    aliases: ClassVar[dict[str, str]] = {"ro": "readonly"}

    path: str
    readonly: bool = False
    overlay: bool = False
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.path:
            raise ConfigError("pmem: path: '' is not a file")

    def build(self) -> Device:
        """The device, over the opened file."""
        from pyhv.block.host_file import HostFile
        from pyhv.virtio.pmem import VirtioPmem

        file = HostFile(self.path, writable=not (self.readonly or self.overlay), what="pmem")
        try:
            return VirtioPmem(file, overlay=self.overlay and not self.readonly, transport=self.transport)
        except BaseException:
            file.close()
            raise
