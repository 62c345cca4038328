"""Hosts that are not this one: directories with the files that an examination reads, and a CPUID to go with them."""

from pathlib import Path

from pyhv.doctor import Host

EPYC = "fpu hypervisor svm npt avic sev sev_es pdpe1gb"
LEAVES = {
    0x8000_0000: (0x8000_0028, 0, 0, 0),
    0x8000_0001: (0, 0, 1 << 2, 0),
    0x8000_000A: (1, 32768, 0, 1 | 1 << 13 | 1 << 18),
    0x8000_001F: (1 << 1 | 1 << 3 | 1 << 4, 51, 509, 100),
}
ALL_ON = {"npt": "Y", "avic": "Y", "sev": "Y", "sev_es": "Y", "sev_snp": "Y"}


class HostFiles:
    """A fake root. Files are made world-accessible; `deny` takes a path's permissions away."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("/proc/sys/kernel/osrelease", "6.12.3-test")

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def cpu(self, vendor: str = "AuthenticAMD", flags: str = EPYC) -> "HostFiles":
        self.write(
            "/proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\nbugs\t\t:\n\nprocessor\t: 1"
        )
        return self

    def kvm(self, module: str = "kvm_amd", **parameters: str) -> "HostFiles":
        self.write("/dev/kvm", "")
        self.write(f"/sys/module/{module}/refcnt", "0")
        for name, value in parameters.items():
            self.write(f"/sys/module/{module}/parameters/{name}", value)
        return self

    def host(self, leaves=None, *, check=lambda: None, root_user=False) -> Host:
        asked = None if leaves is None else leaves.get
        return Host(str(self.root), cpuid=asked, kvm_check=check, user="ada", root_user=root_user)
