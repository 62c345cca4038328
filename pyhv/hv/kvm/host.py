"""What this host's KVM is: the device, its permissions, the module behind it and the CPU's virtualisation."""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.errors import KvmUnavailable
from pyhv.record import field, record

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = "/dev/kvm"
API_VERSION = 12
_GET_API_VERSION = 0xAE00


@record(frozen=True)
class KvmReport:
    """A look at the host that changes nothing.

    - `hardware`: "SVM", "VMX", or "" where the CPU shows neither.
    - `module`: who implements KVM here: "kvm_amd", "kvm_intel", another module's name, or "" where none is loaded.
    - `parameters`: the module's parameters as sysfs shows them (npt, avic, sev, nested, ...).
    - `problem`: why the device cannot be used and what mends it; "" when it can.
    """

    present: bool
    openable: bool
    api_version: int | None
    vendor: str
    hardware: str
    module: str
    parameters: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    def flag(self, parameter: str) -> bool | None:
        """A yes-or-no module parameter; None where the module has no such one."""
        value = self.parameters.get(parameter)
        return None if value is None else value in ("Y", "y", "1")


def cpu_identity() -> tuple[str, str]:
    """The CPU's vendor string, and "SVM", "VMX" or "" for what it shows to this kernel."""
    vendor = hardware = ""
    try:
        with open("/proc/cpuinfo", errors="replace") as cpuinfo:
            for line in cpuinfo:
                key, _, value = line.partition(":")
                key = key.strip()
                if key == "vendor_id":
                    vendor = value.strip()
                elif key == "flags":
                    flags = value.split()
                    hardware = "SVM" if "svm" in flags else "VMX" if "vmx" in flags else ""
                    break
    except OSError:
        pass
    return vendor, hardware


def module_name(root: str = "/sys/module") -> str:
    """The module that implements KVM, "" where none is loaded."""
    for preferred in ("kvm_amd", "kvm_intel"):
        if os.path.isdir(f"{root}/{preferred}"):
            return preferred
    try:
        return min((entry for entry in os.listdir(root) if entry.startswith("kvm_")), default="")
    except OSError:
        return ""


def loaded_module(root: str = "/sys/module") -> tuple[str, dict[str, str]]:
    """The module that implements KVM, and its parameters."""
    name = module_name(root)
    if not name:
        return "", {}
    parameters: dict[str, str] = {}
    directory = f"{root}/{name}/parameters"
    try:
        entries = sorted(os.listdir(directory))
    except OSError:
        entries = []
    for entry in entries:
        try:
            with open(f"{directory}/{entry}", errors="replace") as file:
                parameters[entry] = file.read().strip()
        except OSError:
            continue
    return name, parameters


def explain(code: int, vendor: str, hardware: str, device: str = DEVICE) -> str:
    """Why opening the device failed with this errno, and the exact fix."""
    module = "kvm_amd" if vendor in ("AuthenticAMD", "HygonGenuine") else "kvm_intel"
    if code in (errno.EACCES, errno.EPERM):
        return f"no permission to open {device}: sudo usermod -aG kvm $USER, then log in again (pyhv doctor knows more)"
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        if hardware:
            return f"there is no {device}: sudo modprobe {module}"
        return (
            f"there is no {device} and the CPU shows neither SVM nor VMX: switch SVM (AMD-V) on in the firmware setup, "
            f"or nested virtualisation on where this is a virtual machine, then sudo modprobe {module}"
        )
    return f"{device} cannot be opened: {os.strerror(code)}"


def _api_version(fd: int) -> int:
    import fcntl

    try:
        return fcntl.ioctl(fd, _GET_API_VERSION, 0)
    except OSError as error:
        return -(error.errno or errno.EIO)


def open_device(device: str = DEVICE, api_version: Callable[[int], int] = _api_version) -> int:
    """Open /dev/kvm and check its API version; the descriptor. Raises KvmUnavailable with the reason and the fix.

    `api_version` asks a descriptor for it, and gives a negative errno where that fails.
    """
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KvmUnavailable(explain(error.errno or 0, *cpu_identity(), device)) from None
    version = api_version(fd)
    if version != API_VERSION:
        os.close(fd)
        if version < 0:
            raise KvmUnavailable(f"{device} is not KVM: {os.strerror(-version)}")
        raise KvmUnavailable(
            f"{device} speaks API version {version}; version {API_VERSION} is needed: use a kernel since 2.6.22"
        )
    return fd


def probe(device: str = DEVICE) -> KvmReport:
    """Look at the host. Never raises; `problem` says what is wrong."""
    vendor, hardware = cpu_identity()
    module, parameters = loaded_module()
    present = os.path.exists(device)
    problem = ""
    version: int | None = None
    try:
        os.close(open_device(device))
        version = API_VERSION
    except KvmUnavailable as error:
        problem = str(error)
    return KvmReport(present, not problem, version, vendor, hardware, module, parameters, problem)
