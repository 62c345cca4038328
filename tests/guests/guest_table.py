"""What each guest is expected to do, after its README."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guest_devices as made

from pyhv import Outcome


@dataclass(frozen=True)
class GuestCase:
    """`lines`: the console, whole; where it depends on the processor, `begins` and `ends`, with nothing that fails.

    `devices(directory)` makes the machine's devices in a directory of the run's own, and after it `verify(directory)`
    asserts on what the guest left there. `patience`: seconds after which a run counts as stuck.
    """

    name: str
    lines: tuple[str, ...] = ()
    begins: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    outcome: Outcome = Outcome.PASSED
    status: int | None = 0
    cpus: int = 1
    cmdline: str = ""
    typed: str = ""
    ready: str = ""
    timeout: float = 0.0
    variant: str = ""
    makers: tuple[tuple[made.Maker, str], ...] = ()
    left: tuple[tuple[Callable[[Path, str], None], str], ...] = ()
    patience: float = 60.0

    def __str__(self) -> str:
        if self.variant:
            return f"{self.name}-{self.variant}"
        return self.name if self.cpus == 1 else f"{self.name}-{self.cpus}-cpus"

    def devices(self, directory: Path) -> Sequence[Any]:
        """New ones for each run."""
        return [maker(directory, transport) for maker, transport in self.makers]

    def verify(self, directory: Path) -> None:
        """What is in the directory once the guest is done."""
        for check, transport in self.left:
            check(directory, transport)

    def matches(self, printed: list[str]) -> bool:
        """Whether this is what it should print."""
        if self.lines:
            return tuple(printed) == self.lines
        rest = iter(printed)
        return (
            tuple(printed[: len(self.begins)]) == self.begins
            and all(wanted in rest for wanted in self.contains)
            and tuple(printed[-len(self.ends) :]) == self.ends
            and not any("FAIL" in line for line in printed)
        )


def _smp(cpus: int) -> GuestCase:
    return GuestCase(
        "smp",
        cpus=cpus,
        lines=(
            f"smp: {cpus} cpus",
            "smp: all up, each with its own APIC ID",
            f"smp: counter {cpus * 250}",
            f"smp: {cpus - 1} interprocessor interrupts, one by one",
            f"smp: {cpus - 1} interprocessor interrupts, by broadcast",
            "smp: ok",
        ),
    )


CASES = (
    GuestCase("hello16", lines=("hello from a pyhv guest (flat, 16-bit real mode)", "hello16: ok")),
    GuestCase("hello", lines=("hello from a pyhv guest (multiboot, 32-bit)", "hello: ok")),
    GuestCase("hello64", lines=("hello from a pyhv guest (PVH, 64-bit long mode)", "hello64: ok")),
    GuestCase("fail", lines=("fail: this guest ends with status 7",), outcome=Outcome.FAILED, status=7),
    GuestCase("triple", lines=("triple: about to triple fault",), outcome=Outcome.TRIPLE_FAULT, status=None),
    GuestCase("panic", lines=("panic: telling the host",), outcome=Outcome.PANIC, status=None),
    GuestCase("spin", lines=("spinning",), outcome=Outcome.TIMEOUT, status=None, timeout=1.0),
    GuestCase(
        "echo",
        lines=("echo ready", "echo: one", "echo: ", "echo: two words", "echo: ok"),
        typed="one\n\ntwo words\r\nquit\n",
        ready="echo ready\n",
    ),
    GuestCase(
        "irq",
        lines=(
            "pic pit: 5 ticks",
            "pic line: 2 interrupts",
            "apic self: 1 interrupt, held back by the task priority until that fell",
            "ioapic pit: 5 ticks",
            "ioapic edge: 2 interrupts",
            "ioapic level: 3 interrupts, while held over 2 EOIs",
            "apic timer: 5 ticks, periodic",
            "apic timer: 1 tick, one-shot",
            "msi: 3 messages, the highest vector first",
            "irq: ok",
        ),
    ),
    _smp(1),
    _smp(4),
    GuestCase(
        "mmio",
        lines=(
            "mmio: mov of 1, 2, 4 and 8 bytes, aligned and not",
            "mmio: accesses over a page boundary",
            "mmio: immediates, also sign-extended",
            "mmio: zero and sign extension",
            "mmio: arithmetic in place, with its flags",
            "mmio: xchg, xadd, cmpxchg, bts",
            "mmio: movs, stos, lods, scas, cmps",
            "mmio: push and pop",
            "port: 1, 2 and 4 bytes",
            "port: ins and outs",
            "mmio: ok",
        ),
    ),
    GuestCase("dirty", lines=("dirty: 16 pages written, 210 only read", "dirty: ok")),
    GuestCase(
        "paging",
        begins=(
            "read, not present: error code 0, CR2 right, retried",
            "write, not present: error code 2, CR2 right, retried",
        ),
        contains=(
            "write, read-only: error code 3, CR2 right, retried",
            "user read, supervisor page: error code 5, CR2 right, retried",
            "fetch, no-execute: error code 11, CR2 right, retried",
            "user fetch, no-execute: error code 15, CR2 right, retried",
            "accessed bits: set by a read, on every level; dirty bit: set by a write",
            "a changed mapping counts after invlpg, and after a load of CR3",
        ),
        ends=("write, read-only 2 MiB page: error code 3, CR2 right, retried", "paging: ok"),
    ),
    GuestCase(
        "sensitive",
        contains=(
            "pushf: ring 0 IF 0 IOPL 0; ring 3 IF 1 IOPL 0",
            "popf, IF: ring 0 changed; ring 3 kept",
            "sgdt: ring 0 own table; ring 3 no fault",
            "lar, ring 0 code: ring 3 refused",
            "far call, ring 0 code: ring 0 ran in ring 0; ring 3 #GP(0008)",
            "in: ring 0 done; ring 3 #GP(0000)",
        ),
        ends=("hlt: ring 3 #GP(0000)", "sensitive: ok"),
    ),
    GuestCase(
        "bench",
        lines=(
            "bench: 1 rounds",
            "sieve: 74e6e080",
            "sort: 6f370dd9",
            "crc: 61e0f714",
            "matrix: e6596c07",
            "states: 6b98f34c",
            "hash: 7e02f69f",
            "calls: 7eb5d9ce",
            "bench: ok",
        ),
        cmdline="scale=1",
    ),
)

_BLOCK = (
    "block: 2048 sectors",
    "block: read: hello from the host",
    "block: 16 sectors written and read back",
    "block: flushed",
    "block: id: pyhv-disk",
    "block: errors where it ends, and for an unknown request",
    "block: an interrupt for each request",
)
_NET = (
    "net: address 02:00:00:00:00:15",
    "net: 10.0.2.2 is at 02:76:00:00:00:01",
    "net: a datagram echoed",
)
_ENTROPY = ("entropy: 64 bytes, and 64 others", "entropy: an interrupt for each request")


def _hostile(variant: str, *makers: tuple[made.Maker, str], **fields: Any) -> GuestCase:
    return GuestCase(
        "virtio-hostile", variant=variant, makers=makers, ends=("virtio-hostile: ok",), patience=400.0, **fields
    )


DEVICE_CASES = (
    GuestCase(
        "virtio-mmio",
        lines=(
            "feb00000: block, interrupt 16",
            *_BLOCK,
            "feb01000: net, interrupt 17",
            *_NET,
            "feb02000: entropy, interrupt 18",
            *_ENTROPY,
            "virtio-mmio: ok",
        ),
        makers=tuple((maker, "mmio") for maker in made.BASIC),
        left=((made.check_written, "mmio"),),
    ),
    GuestCase(
        "virtio-mmio",
        variant="by-command-line",
        cmdline="console=none virtio_mmio.device=4K@0xfeb01000:17 virtio_mmio.device=4K@0xfeb02000:18",
        lines=(
            "feb01000: net, interrupt 17",
            *_NET,
            "feb02000: entropy, interrupt 18",
            *_ENTROPY,
            "virtio-mmio: ok",
        ),
        makers=tuple((maker, "mmio") for maker in made.BASIC),
    ),
    GuestCase(
        "virtio-pci",
        lines=(
            "0.0: 1b36:8, class 60000",
            "1.0: 1af4:1042, class 18000",
            "2.0: 1af4:1041, class 20000",
            "3.0: 1af4:1044, class ff00",
            "configuration space: the same by ports and in memory",
            "1.0: block",
            *_BLOCK,
            "2.0: net",
            *_NET,
            "3.0: entropy",
            *_ENTROPY,
            "entropy: 2 interrupts by the pin",
            "3.0: moved",
            *_ENTROPY,
            "virtio-pci: ok",
        ),
        makers=tuple((maker, "pci") for maker in made.BASIC),
        left=((made.check_written, "pci"),),
    ),
    _hostile(
        "mmio",
        (made.disk, "mmio"),
        (made.net, "mmio"),
        (made.entropy, "pci"),
        contains=(
            "ok mmio0 block features_without_negotiation",
            "ok mmio0 block registers_after_enable",
            "ok mmio0 block reset_with_requests_under_way",
            "ok mmio0 block table_in_a_table",
            "ok mmio0 block packed_longest_table",
            "ok mmio0 block over_the_end_of_the_page",
            "ok mmio0 block zeroed_nonsense",
            "ok mmio1 net no_room_for_frames",
            "ok pci0 entropy decoding_off_while_notifying",
        ),
        left=((made.check_size, "mmio"),),
        cpus=2,
    ),
    _hostile(
        "pci",
        (made.disk, "pci"),
        (made.net, "pci"),
        (made.entropy, "mmio"),
        contains=(
            "ok mmio0 entropy index_jumps",
            "ok pci0 block readable_after_writable",
            "ok pci0 block rings_written_meanwhile",
            "ok pci0 block ranges_over_virtio_mmio",
            "ok pci0 block messages_to_absent_processors",
            "ok pci1 net nonsense_in_headers",
        ),
        left=((made.check_size, "pci"),),
        cpus=2,
    ),
)
"""Guests that need more than a PC has. They are told apart from CASES for whoever runs those on bare machines."""

OTHER_DEVICES = tuple(
    _hostile(
        f"other-{transport}",
        *((maker, transport) for maker in made.OTHERS),
        left=((made.check_confined, transport),),
        cmdline="seed=2026",
    )
    for transport in ("mmio", "pci")
)
"""The hostile driver against the rest of the devices."""
