"""Rows about Linux with devices: on kvm_amd in the rig, beside QEMU's own."""

import json
import shutil
import subprocess
from collections.abc import Iterator

from bench.linux_initramfs import write_initramfs
from bench.measure import PYTHON, ROOT, NotMeasured, Row

RIG_SECONDS = 900


def in_rig(rounds: int) -> Iterator[Row]:
    """A boot with disk and network, whole processes."""
    name = "Linux with disk and network on kvm_amd (rig) / QEMU"
    try:
        write_initramfs()
        times = _rig(rounds)
    except NotMeasured as error:
        yield Row(name, "", "", None, at_most=1.5, note=str(error))
        return
    ours, theirs = times["pyhv"], times["qemu"]
    yield Row(name, f"{ours:.2f} s", f"{theirs:.2f} s", ours / theirs, at_most=1.5)


def _rig(rounds: int) -> dict[str, float]:
    if shutil.which("qemu-system-x86_64") is None:
        raise NotMeasured("there is no qemu-system-x86_64 (make deps)")
    command = [
        *(PYTHON, ROOT / "scripts" / "rig.py", "--memory", "1536M", "--timeout", str(RIG_SECONDS)),
        *("--", PYTHON, ROOT / "scripts" / "bench" / "devices_in_rig.py", str(rounds)),
    ]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    report = json.loads(found[-1]) if found else {"error": f"status {done.returncode}: {done.stderr[-300:]}"}
    if "error" in report:
        raise NotMeasured(f"the rig: {report['error']}")
    return dict(report)
