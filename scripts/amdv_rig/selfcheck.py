"""Run inside the rig: proves that /dev/kvm is kvm_amd's, with nested paging, by the kernel's own interface.

Prints a line for each fact and ends with 0 when all hold, 1 otherwise.
"""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

# include/uapi/linux/kvm.h: _IO(KVMIO, 0x00) and _IO(KVMIO, 0x01).
_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01


def _parameter(name: str) -> str:
    return Path(f"/sys/module/kvm_amd/parameters/{name}").read_text().strip()


def _svm_flags() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return " ".join(flag for flag in ("svm", "npt") if flag in line.split())
    return ""


def _api_version() -> str:
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        version = fcntl.ioctl(kvm, _KVM_GET_API_VERSION, 0)
        os.close(fcntl.ioctl(kvm, _KVM_CREATE_VM, 0))
    finally:
        os.close(kvm)
    return f"{version}, a VM can be made"


CHECKS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("module", lambda: "kvm_amd" if Path("/sys/module/kvm_amd").is_dir() else "absent", "kvm_amd"),
    ("cpu flags", _svm_flags, "svm npt"),
    ("nested paging (kvm_amd npt)", lambda: _parameter("npt"), "Y"),
    ("KVM API", _api_version, "12, a VM can be made"),
)


def main() -> int:
    good = True
    for name, check, wanted in CHECKS:
        try:
            got = check()
        except OSError as error:
            got = str(error)
        good &= got == wanted
        print(f"{name}: {got}" + ("" if got == wanted else f" (wanted: {wanted})"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
