#!/usr/bin/env python3
"""Inside the AMD-V rig: a Linux boot with disk and network, by pyhv and by QEMU on the same kvm_amd. Prints JSON.

    scripts/rig.py -- python scripts/bench/devices_in_rig.py [ROUNDS]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.linux_initramfs import EXPECTED, kernel, write_disk
from bench.measure import BUILD, PYHV, NotMeasured, interleaved

CMDLINE = "console=ttyS0 panic=-1 quiet"
MEMORY = "256"


def boot(command: list[str]) -> float:
    """Seconds of a whole process whose guest used its devices. Raises NotMeasured when it did not."""
    began = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
    took = time.perf_counter() - began
    missing = [line for line in EXPECTED if line not in done.stdout]
    if done.returncode or missing:
        raise NotMeasured(f"{Path(command[0]).name}: status {done.returncode}, without {missing}: {done.stderr[-300:]}")
    return took


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as scratch:
        disk = str(write_disk(Path(scratch) / "disk.img"))
        initrd = str(BUILD / "devices.cpio")
        image = str(kernel())
        pyhv = [
            *(str(PYHV), "run", image, "--initrd", initrd, "--cmdline", CMDLINE, "--memory", f"{MEMORY}M"),
            *("--disk", disk, "--net", "user", "--backend", "kvm", "--quiet"),
        ]
        qemu = [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", MEMORY, "-nodefaults"),
            *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", image, "-initrd", initrd),
            *("-append", CMDLINE, "-drive", f"file={disk},if=none,id=d,format=raw", "-device", "virtio-blk-pci,drive=d"),
            *("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="),
        ]
        try:
            ours, theirs = interleaved([lambda: boot(pyhv), lambda: boot(qemu)], rounds)
        except (NotMeasured, subprocess.TimeoutExpired) as error:
            print(json.dumps({"error": str(error)}))
            return 1
    print(json.dumps({"pyhv": ours, "qemu": theirs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
