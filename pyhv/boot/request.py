"""What a loader is asked for, checked once for all of them."""

from __future__ import annotations

import os

from pyhv._types import TYPE_CHECKING
from pyhv.boot.image import read_image
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.image import Image, Source
    from pyhv.memory import GuestMemory


class Module:
    """A file beside the kernel; `string` is what the guest is told about it."""

    __slots__ = ("image", "string")

    def __init__(self, image: Image, string: bytes) -> None:
        self.image = image
        self.string = string


class Request:
    """`zeroed`: the memory is fresh, so what stays zero need not be written."""

    __slots__ = ("cmdline", "initrd", "kernel", "memory", "modules", "ram_size", "rsdp", "zeroed")

    def __init__(
        self,
        memory: GuestMemory,
        kernel: Image,
        initrd: Source | None,
        cmdline: bytes,
        modules: Sequence[tuple[Source, str | bytes]],
        ram_size: int,
        rsdp: int,
        zeroed: bool,
    ) -> None:
        self.memory = memory
        self.kernel = kernel
        self.initrd = initrd
        self.cmdline = cmdline
        self.modules = modules
        self.ram_size = ram_size
        self.rsdp = rsdp
        self.zeroed = zeroed

    def with_kernel(self, kernel: Image) -> Request:
        """The same for another kernel."""
        return Request(
            self.memory, kernel, self.initrd, self.cmdline, self.modules, self.ram_size, self.rsdp, self.zeroed
        )

    def read_initrd(self) -> Image | None:
        """The initial RAM disk, None without one. Raises ConfigError."""
        return None if self.initrd is None else read_image(self.initrd, "initrd")

    def all_modules(self) -> list[Module]:
        """The initrd, then the modules. Raises ConfigError."""
        out = [Module(read_image(path, "initrd"), string) for path, string in self._initrd_modules()]
        for source, string in self.modules:
            image = read_image(source, "modules")
            out.append(Module(image, encode(string, "modules") or encode(image.name, "modules")))
        return out

    def _initrd_modules(self) -> list[tuple[Source, bytes]]:
        """An option may hold several, as with QEMU: "a arguments,b arguments", where ",," is a comma."""
        source = self.initrd
        if source is None:
            return []
        if isinstance(source, bytes):
            return [(source, b"initrd")]
        text = os.fspath(source)
        if os.path.exists(text) or not ("," in text or " " in text):
            return [(text, encode(text, "initrd"))]
        parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
        return [(part.split(" ", 1)[0], encode(part, "initrd")) for part in parts]

    def no_modules(self, protocol: str) -> None:
        """Raises ConfigError where a protocol knows no modules and some were given."""
        if self.modules:
            raise ConfigError(f"modules: {protocol} kernels take none; only multiboot and PVH kernels do")


def encode(text: str | bytes, option: str) -> bytes:
    """Text for the guest, in UTF-8; file names pass unchanged. Raises ConfigError."""
    if isinstance(text, str):
        try:
            text = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ConfigError(f"{option}: {text!r} cannot be encoded as UTF-8") from None
    if b"\0" in text:
        raise ConfigError(f"{option}: contains a NUL character")
    return text
