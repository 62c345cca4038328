"""Rows about the simulator: an integer benchmark, lives of tiny VMs, a Linux boot."""

import functools
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyhv
from bench import images
from bench.kvm import lives_a_second
from bench.measure import BUILD, PYHV, ROOT, NotMeasured, Row, guest, interleaved, wall

ROUNDS = 20
"""Of guests/bench, 3.2 million instructions each."""
LIVES = 200
KERNELS = ROOT / "build" / "kernels"
CMDLINE = "console=ttyS0 panic=-1 quiet"

_INFO, _COMMAND_LINE, _STACK, _RAM = 0x8000, 0x9000, 0x180000, 0x200000
_LINE_STATUS, _EMPTY = 0x3FD, 0x60
_DEBUG_EXIT = 0xF4


def integer(rounds: int) -> Iterator[Row]:
    """guests/bench against Unicorn and against QEMU TCG, without their start."""
    name = "integer benchmark, sim / "
    image = guest("bench.elf")
    machine = pyhv.Machine(image, memory="16M", cmdline=f"scale={ROUNDS}")

    def simulated() -> float:
        with pyhv.Vm(machine, backend="sim") as vm:
            return vm.run().check().wall_seconds

    try:
        simulated()
        from unicorn import UcError

        ours, theirs = interleaved([simulated, functools.partial(_unicorn, image)], rounds)
    except (NotMeasured, pyhv.HostError, ImportError) as error:
        yield Row(f"{name}Unicorn", "", "", None, at_least=1.3, note=str(error))
    except UcError as error:
        yield Row(f"{name}Unicorn", "", "", None, at_least=1.3, note=f"Unicorn: {error}")
    else:
        yield Row(f"{name}Unicorn (speed)", f"{ours:.3f} s", f"{theirs:.3f} s", theirs / ours, at_least=1.3)


def _unicorn(image: Path) -> float:
    """Seconds that Unicorn takes for the guest's main(), in long mode with its flat memory: what suits it best."""
    import unicorn
    from unicorn import x86_const as x86

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0, _RAM)
    main = _load(uc, image.read_bytes())
    uc.mem_write(_INFO, struct.pack("<IIIIQQ", 0x336EC578, 1, 0, 0, 0, _COMMAND_LINE))
    uc.mem_write(_COMMAND_LINE, f"scale={ROUNDS}\0".encode())
    uc.reg_write(x86.UC_X86_REG_RSP, _STACK - 8)  # a return to 0 ends it
    uc.reg_write(x86.UC_X86_REG_RDI, _INFO)
    printed = bytearray()

    def on_in(uc: Any, port: int, size: int, data: object) -> int:
        return _EMPTY if port == _LINE_STATUS else 0

    def on_out(uc: Any, port: int, size: int, value: int, data: object) -> None:
        if port == _DEBUG_EXIT:
            uc.emu_stop()
        else:
            printed.append(value & 0xFF)

    uc.hook_add(unicorn.UC_HOOK_INSN, on_in, None, 1, 0, x86.UC_X86_INS_IN)
    uc.hook_add(unicorn.UC_HOOK_INSN, on_out, None, 1, 0, x86.UC_X86_INS_OUT)
    began = time.perf_counter()
    uc.emu_start(main, 0)
    took = time.perf_counter() - began
    if b"bench: ok" not in printed:
        raise NotMeasured("Unicorn did not come to the benchmark's end")
    return took


def _load(uc: Any, elf: bytes) -> int:
    """Load a 64-bit ELF file's segments; the address of its `main`."""
    headers, sections = struct.unpack_from("<QQ", elf, 32)
    size, count, section_size, section_count = struct.unpack_from("<HHHH", elf, 54)
    for i in range(count):
        kind, _, offset, _, address, length = struct.unpack_from("<IIQQQQ", elf, headers + i * size)
        if kind == 1:
            uc.mem_write(address, elf[offset : offset + length])
    table = [
        struct.unpack_from("<IIQQQQIIQQ", elf, sections + i * section_size) for i in range(section_count)
    ]
    for _, kind, _, _, offset, length, link, _, _, entry in table:
        if kind != 2:
            continue
        names = table[link][4]
        for at in range(offset, offset + length, entry):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", elf, at)
            if elf[names + name :].startswith(b"main\0"):
                return int(value)
    raise NotMeasured("bench.elf has no symbol main")


def lives(rounds: int) -> Iterator[Row]:
    """Tiny VMs a second."""
    name = "tiny VMs in one process, sim"
    image, _ = images.write(BUILD, "end", images.end_code())
    try:
        lives_a_second(image, "sim", 10)
        (ours,) = interleaved([functools.partial(lives_a_second, image, "sim", LIVES)], rounds)
    except (NotMeasured, pyhv.PyhvError) as error:
        yield Row(name, "", "", None, at_least=500, unit="/s", note=str(error))
        return
    yield Row(name, f"{ours:.0f}/s", "", ours, at_least=500, unit="/s")


def linux(rounds: int) -> Iterator[Row]:
    """Debian's cloud kernel to a busybox userspace that powers off, whole processes."""
    name = "Debian's kernel to userspace and power-off, sim / QEMU TCG"
    kernel, initrd = KERNELS / "cloud" / "vmlinuz", KERNELS / "busybox-initramfs.cpio.gz"
    try:
        if not kernel.exists() or not initrd.exists():
            raise NotMeasured("the kernels are not there (make kernels)")
        if shutil.which("qemu-system-x86_64") is None:
            raise NotMeasured("there is no qemu-system-x86_64 (make deps)")
        pyhv_command = [PYHV, "run", kernel, "--initrd", initrd, "--cmdline", CMDLINE, "--backend", "sim"]
        qemu = [
            *("qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults"),
            *("-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", kernel, "-initrd", initrd, "-append", CMDLINE),
        ]
        ours, theirs = interleaved([functools.partial(wall, pyhv_command), functools.partial(wall, qemu)], rounds)
    except NotMeasured as error:
        yield Row(name, "", "", None, at_most=3, note=str(error))
        return
    yield Row(name, f"{ours:.2f} s", f"{theirs:.2f} s", ours / theirs, at_most=3)
