"""Linux uses shared folders: Debian's kernel on the simulator, a writable and a read-only one, over both transports."""

import hashlib
import os
from pathlib import Path

import pytest

import pyhv
from pyhv.hv.select import Selection

ROOT = Path(__file__).resolve().parents[2]
KERNEL = ROOT / "build/kernels/cloud/vmlinuz"

SCRIPT = """
set -e
mkdir -p /mnt/w /mnt/r
mount -t virtiofs w /mnt/w
mount -t virtiofs r /mnt/r
cd /mnt/w
cat hello.txt link
cat /mnt/r/dir/sub/deep | md5sum
mkdir made; cp /bin/ls made/ls; chmod 755 made/ls; cmp /bin/ls made/ls; ./made/ls dir
cat fifo & echo through the fifo > fifo; wait
ln hello.txt hard; stat -c %h hello.txt
mv hello.txt moved; cat hard
exec 5>gone; rm gone; echo held >&5; stat -L -c '%s %h' /proc/self/fd/5; exec 5>&-
dd if=/dev/zero bs=1M count=3 of=zeroes 2>/dev/null; truncate -s 5 zeroes; echo end >> zeroes
touch -d @981173106.75 zeroes
for i in $(seq 120); do echo $i > made/f$i; done; ls made | wc -l; rm -r made
cat /mnt/w/out 2>/dev/null || echo no way out
cat outside.txt 2>/dev/null || echo not there
(echo x > /mnt/r/new) 2>/dev/null || echo read-only
rm /mnt/r/empty 2>/dev/null || echo kept
sync
cat appears
cd /; umount /mnt/w /mnt/r
"""


@pytest.mark.parametrize("cache", ["auto", "always"])
def test_linux(folder: Path, outside: Path, sim: Selection, cache: str) -> None:
    if not KERNEL.exists():
        pytest.skip(f"{KERNEL.relative_to(ROOT)} is missing: run `make kernels`")
    (outside / "outside.txt").write_text("outside")
    (folder / "appears").write_text("it is there\n")
    result = pyhv.run_command(
        KERNEL,
        ["sh", "-c", SCRIPT],
        backend="sim",
        timeout=120,
        cmdline="cryptomgr.notests",
        devices=[
            pyhv.Share(str(folder), tag="w", writable=True, cache=cache, queues=2),
            pyhv.Share(str(folder), tag="r", cache="auto" if cache == "always" else "always", transport="mmio"),
        ],
    )
    assert result.stderr == b"" and result.status == 0
    assert result.stdout.decode().splitlines() == [
        *["hello"] * 2,
        f"{hashlib.md5((folder / 'dir/sub/deep').read_bytes()).hexdigest()}  -",
        *("inner.txt", "sub", "through the fifo", "2", "hello", "5 0", "121"),
        *("no way out", "not there", "read-only", "kept", "it is there"),
    ]
    assert (folder / "moved").read_bytes() == b"hello\n" and (folder / "moved").stat().st_nlink == 2
    assert (folder / "zeroes").read_bytes() == bytes(5) + b"end\n"
    assert (folder / "zeroes").stat().st_mtime == 981173106.75
    assert not (folder / "made").exists() and (folder / "empty").exists()
    assert sorted(os.listdir(outside)) == ["outside.txt", "secret"]
