"""What each guest is expected to do, after its README."""

from dataclasses import dataclass

from pyhv import Outcome


@dataclass(frozen=True)
class GuestCase:
    """`lines`: the console, whole; where it depends on the processor, `begins` and `ends`, with nothing that fails."""

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

    def __str__(self) -> str:
        return self.name if self.cpus == 1 else f"{self.name}-{self.cpus}-cpus"

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
