"""The host as files and CPUID: everything an examination reads goes through here, so that tests can show it another host."""

from __future__ import annotations

import os
import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    Leaf = tuple[int, int, int, int]
    Cpuid = Callable[[int], Leaf | None]

CPU_DEVICE = "/dev/cpu/0/cpuid"
"""The kernel's `cpuid` module: 16 bytes at the offset of a leaf (cpuid(4))."""


class Host:
    """A host below `root`.

    - `cpuid(leaf)`: EAX, EBX, ECX, EDX, or None where it cannot be asked; by default the kernel's cpuid device.
    - `kvm_check()`: raises HostError when KVM does not run code; by default `pyhv.hv.kvm.self_test` on the real host.
    - `user`, `root_user`: whose permissions count, and whether no `sudo` is needed.
    """

    def __init__(
        self,
        root: str = "",
        *,
        cpuid: Cpuid | None = None,
        kvm_check: Callable[[], None] | None = None,
        user: str | None = None,
        root_user: bool | None = None,
    ) -> None:
        self.root = root
        self._cpuid = cpuid
        self._kvm_check = kvm_check
        self.user = user if user is not None else _user_name()
        self.root_user = os.geteuid() == 0 if root_user is None else root_user
        self.vendor, self.flags = self._cpu()
        self.module, self.parameters = self._module()

    # Files

    def path(self, path: str) -> str:
        """Where an absolute path lies on this host."""
        return self.root + path

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def text(self, path: str) -> str | None:
        """A small file's text, stripped; None where it cannot be read."""
        try:
            with open(self.path(path), errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        text = self.text(path)
        return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None

    def selected(self, path: str) -> str | None:
        """The choice in brackets of a setting such as "always [madvise] never"."""
        text = self.text(path)
        return None if text is None else text.partition("[")[2].partition("]")[0] or None

    def accessible(self, path: str) -> bool:
        """Whether this process may read and write it."""
        return os.access(self.path(path), os.R_OK | os.W_OK)

    def mode(self, path: str) -> str:
        """Permissions and owners as `ls -l` shows them; "" where there is no such file."""
        import stat

        try:
            status = os.stat(self.path(path))
        except OSError:
            return ""
        return f"{stat.filemode(status.st_mode)} {_owner(status.st_uid)}:{group_name(status.st_gid)}"

    def group(self, path: str) -> str:
        """The name of a file's group; "" where there is no such file."""
        try:
            return group_name(os.stat(self.path(path)).st_gid)
        except OSError:
            return ""

    def in_group_file(self, group: str) -> bool:
        """Whether /etc/group lists the user in it: what a new login would have."""
        for line in (self.text("/etc/group") or "").splitlines():
            name, _, rest = line.partition(":")
            if name == group and self.user in rest.rpartition(":")[2].split(","):
                return True
        return False

    # The processor and KVM

    def _cpu(self) -> tuple[str, frozenset[str]]:
        vendor, flags = "", frozenset[str]()
        for line in (self.text("/proc/cpuinfo") or "").splitlines():
            key, _, value = line.partition(":")
            key = key.strip()
            if key == "vendor_id":
                vendor = value.strip()
            elif key == "flags":
                flags = frozenset(value.split())
                break
        return vendor, flags

    def _module(self) -> tuple[str, dict[str, str]]:
        from pyhv.hv.kvm.host import loaded_module

        return loaded_module(self.path("/sys/module"))

    @property
    def amd(self) -> bool:
        return self.vendor in ("AuthenticAMD", "HygonGenuine")

    @property
    def virtual(self) -> bool:
        """Whether this host is itself a virtual machine."""
        return "hypervisor" in self.flags

    @property
    def kernel(self) -> tuple[int, int]:
        """The kernel's release, as two numbers."""
        text = self.text("/proc/sys/kernel/osrelease") or ""
        major, _, rest = text.partition(".")
        minor = rest.partition(".")[0].partition("-")[0]
        known = all(part.isascii() and part.isdigit() and len(part) < 6 for part in (major, minor))
        return (int(major), int(minor)) if known else (0, 0)

    def parameter(self, name: str) -> bool | None:
        """A yes-or-no parameter of KVM's module; None where it has no such one, or leaves it open."""
        value = self.parameters.get(name)
        if value in ("Y", "y", "1"):
            return True
        return False if value in ("N", "n", "0") else None

    def cpuid(self, leaf: int) -> Leaf | None:
        """A CPUID leaf as the processor shows it to this kernel, None where it cannot be asked."""
        if self._cpuid is not None:
            return self._cpuid(leaf)
        try:
            with open(self.path(CPU_DEVICE), "rb", buffering=0) as device:
                device.seek(leaf)
                data = device.read(16)
        except OSError:
            return None
        return struct.unpack("<4I", data) if data and len(data) == 16 else None

    def check_kvm(self) -> None:
        """Raises HostError when KVM does not run code here."""
        if self._kvm_check is not None:
            self._kvm_check()
            return
        if self.root:
            raise HostError("the self-test runs on the real host only")
        from pyhv.hv.kvm import self_test

        self_test()

    # Commands that mend it

    def sudo(self, command: str) -> str:
        """The command as this user must type it."""
        return command if self.root_user else f"sudo {command}"

    def write(self, value: object, path: str) -> str:
        """The command that writes a value to a setting."""
        return f"echo {value} > {path}" if self.root_user else f"echo {value} | sudo tee {path}"

    def reload(self, *parameters: str) -> str:
        """The command that loads kvm_amd again with other parameters (no VM may run meanwhile)."""
        return f"{self.sudo('modprobe -r kvm_amd')} && {self.sudo('modprobe kvm_amd')} {' '.join(parameters)}"


def _user_name() -> str:
    return _owner(os.geteuid())


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """A group's name, or its number where it has none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
