"""`Vm.trace`: what is recorded, in which order, and that the run does not notice."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import tiny

import pyhv
from pyhv.boot.symbols import SymbolTable
from pyhv.hv.select import Selection, select
from pyhv.trace import EVERYWHERE, KINDS, TraceEvent, Tracer

Guest = Callable[[str], Path]


@pytest.fixture
def sim() -> Selection:
    try:
        return select("sim")
    except pyhv.HostError as error:
        pytest.skip(f"no simulator here: {error}")


def traced(
    kernel: Path,
    what: Iterable[str],
    backend: Selection,
    *,
    cpus: int = 1,
    limit: int = 100_000,
    address: tuple[int, int] | None = None,
) -> tuple[Tracer, pyhv.Result]:
    form = "flat" if kernel.name.startswith("tiny") else "auto"
    with pyhv.Vm(pyhv.Machine(kernel, cpus=cpus, memory="64M", format=form), backend=backend) as vm:
        tracer = vm.trace(what, limit=limit, address=address)
        return tracer, vm.run(30)


def short(events: Iterable[TraceEvent]) -> list[tuple[object, ...]]:
    """Kind, place, and what says most."""
    out: list[tuple[object, ...]] = []
    for e in events:
        what = {
            "instructions": e.instruction.hex(),
            "branches": e.target and e.target[2],
            "interrupts": (e.code, e.origin),
            "exceptions": e.name,
        }.get(e.kind, e.name)
        out.append((e.kind, e.address, what))
    return out


CONTROL = (
    """
    cli
    xor cx, cx
    mov ds, cx
    mov ss, cx
    mov sp, 0x7c00
    mov word ptr [4 * 0x40], offset handler
    mov word ptr [4 * 0x40 + 2], 0
    mov cl, 2
1:  loop 1b
    jmp 2f
2:  call callee
    int 0x40
    .byte 0xea
    .word after, 0
after:
    mov di, 0x9000
    mov cl, 3
    rep stosb
"""
    + tiny.exit(0)
    + "callee: ret\nhandler: iret\n"
)


def test_branches_and_interrupts_of_a_small_program(tmp_path: Path, sim: Selection) -> None:
    kernel = tiny.image(tmp_path, CONTROL)
    tracer, result = traced(kernel, KINDS, sim)
    assert result.ok and tracer.dropped == 0
    instructions = [e for e in tracer.events if e.kind == "instructions"]
    code = kernel.read_bytes()
    for e in instructions:
        at = e.rip - tiny.ORG
        assert code[at : at + len(e.instruction)] == e.instruction
        assert (e.mode, e.cs, e.cpl, e.vcpu, e.address) == ("real", 0, 0, 0, e.rip)
    where = {e.instruction.hex(): e.rip for e in instructions}
    loop, jump, call = where["e2fe"], where["eb00"], next(at for text, at in where.items() if text.startswith("e8"))
    far = next(at for text, at in where.items() if text.startswith("ea"))
    soft, ret, iret = where["cd40"], where["c3"], where["cf"]
    assert [
        (e.kind, e.rip, e.target and e.target[1]) for e in tracer.events if e.kind in ("branches", "interrupts")
    ] == [
        ("branches", loop, loop),
        ("branches", jump, jump + 2),
        ("branches", call, ret),
        ("branches", ret, call + 3),
        ("interrupts", soft, None),
        ("branches", iret, soft + 2),
        ("branches", far, far + 5),
    ]
    interrupt = next(e for e in tracer.events if e.kind == "interrupts")
    assert (interrupt.code, interrupt.origin) == (0x40, "software")
    assert sum(e.instruction == b"\xf3\xaa" for e in instructions) == 3
    last = tracer.events[-1]
    assert (last.kind, last.name, last.info) == ("exits", "IOIO", (0xF4 << 16 | 0x90, last.rip + 2))
    assert [e.instructions for e in instructions] == list(range(len(instructions)))
    assert result.instructions == last.instructions == len(instructions) - 1


def test_as_text(tmp_path: Path, sim: Selection) -> None:
    tracer, _ = traced(tiny.image(tmp_path, "cli\njmp 1f\n1: nop\n" + tiny.exit(0)), KINDS, sim, limit=4)
    assert list(tracer.lines()) == [
        f"{'0':>10} cpu0 0/real   {'0000:7c00':<42} instruction fa",
        f"{'1':>10} cpu0 0/real   {'0000:7c01':<42} instruction eb 00",
        f"{'1':>10} cpu0 0/real   {'0000:7c01':<42} branch -> 0000:7c03",
        f"{'2':>10} cpu0 0/real   {'0000:7c03':<42} instruction 90",
        f"# 4 events, {tracer.dropped} more dropped",
    ]


def test_an_exception_has_its_error_code_and_address(tmp_path: Path, sim: Selection) -> None:
    tracer, result = traced(tiny.image(tmp_path, "mov byte ptr [0x40000123], 1\n", bits=64), ("exceptions",), sim)
    assert result.outcome is pyhv.Outcome.TRIPLE_FAULT
    first = tracer.events[0]
    assert (first.name, first.code, first.error, first.cr2, first.mode) == ("#PF", 14, 2, 0x4000_0123, "64")
    assert tracer.events[-1].name == "#DF"
    assert first.text().endswith("exception #PF error=0x2 cr2=0x40000123")


def test_why_a_guest_triple_faults(guest: Guest, sim: Selection) -> None:
    tracer, _ = traced(guest("triple"), ("exceptions", "exits"), sim)
    assert [e.name for e in tracer.events[-4:]] == ["#UD", "#GP", "#DF", "SHUTDOWN"]
    assert tracer.events[-4].text(SymbolTable.open(guest("triple"))).split()[4].startswith("main+")


def test_interrupts_are_those_that_were_counted(guest: Guest, sim: Selection) -> None:
    tracer, result = traced(guest("irq"), ("interrupts", "exceptions", "exits"), sim)
    kinds = [e.kind for e in tracer.events]
    assert kinds.count("interrupts") == result.statistics["interrupts"] + result.statistics["nmis"] > 10
    assert {e.origin for e in tracer.events if e.kind == "interrupts"} >= {"", "injected"}
    assert kinds.count("exits") == result.statistics["vmexits"]


@pytest.mark.parametrize(("name", "cpus"), [("irq", 1), ("paging", 1), ("mmio", 1), ("hello16", 1), ("smp", 4)])
def test_the_run_does_not_notice(name: str, cpus: int, guest: Guest, sim: Selection) -> None:
    plain = pyhv.run(pyhv.Machine(guest(name), cpus=cpus, memory="64M"), backend=sim, timeout=30)
    for what in (("exits", "exceptions", "interrupts"), KINDS):
        _, result = traced(guest(name), what, sim, cpus=cpus, limit=10)
        for field in ("outcome", "instructions", "exits", "console"):
            assert getattr(result, field) == getattr(plain, field), (what, field)


def test_a_device_access_is_one_instruction(tmp_path: Path, sim: Selection) -> None:
    source = "mov esi, 0xd0000000\nmov eax, [esi]\nmov edi, 0xd0000010\nmovsd\n" + tiny.exit(0)
    tracer, result = traced(tiny.image(tmp_path, source, bits=32), ("instructions", "exits"), sim)
    assert result.ok
    shown = [e.instruction.hex() for e in tracer.events if e.kind == "instructions"]
    assert shown.count("8b06") == shown.count("a5") == 1
    assert [e.name for e in tracer.events if e.kind == "exits"] == ["NPF", "NPF", "NPF", "IOIO"]


def test_more_than_the_buffer_holds(guest: Guest, sim: Selection) -> None:
    tracer, _ = traced(guest("smp"), ("instructions",), sim, cpus=4, limit=1_000_000)
    assert tracer.dropped == 0 and len(tracer.events) == tracer.taken > 80_000
    for index in range(4):
        counts = [e.instructions or 0 for e in tracer.events if e.vcpu == index]
        assert counts == sorted(counts) and counts
    none, _ = traced(guest("smp"), ("instructions",), sim, cpus=4, limit=0)
    assert (none.taken, none.dropped, none.events) == (0, tracer.taken, [])
    some, _ = traced(guest("smp"), ("instructions",), sim, cpus=4, limit=100)
    assert some.events == tracer.events[:100] and some.taken + some.dropped == tracer.taken


def test_only_what_happens_there(guest: Guest, sim: Selection) -> None:
    extent = SymbolTable.open(guest("hello")).extent("main")
    assert extent is not None
    everything, _ = traced(guest("hello"), KINDS, sim)
    tracer, _ = traced(guest("hello"), KINDS, sim, address=extent)
    low, high = extent

    def inside(e: TraceEvent) -> bool:
        return low <= e.address <= high or (e.target is not None and low <= e.target[2] <= high)

    assert tracer.events == [e for e in everything.events if inside(e)]
    assert any(e.kind == "branches" and not low <= e.address <= high for e in tracer.events)


def test_a_sink_that_raises_ends_the_run_as_an_error(guest: Guest, sim: Selection) -> None:
    def sink(event: TraceEvent) -> None:
        raise RuntimeError("no more paper")

    with pyhv.Vm(pyhv.Machine(guest("hello")), backend=sim) as vm:
        vm.trace(sink=sink)
        result = vm.run(10)
    assert result.outcome is pyhv.Outcome.ERROR and "no more paper" in result.detail


def test_exits_on_any_backend(guest: Guest, backend: Selection) -> None:
    tracer, result = traced(guest("hello"), "exits", backend)
    assert result.ok and tracer.dropped == 0
    names = SymbolTable.open(guest("hello"))
    assert {e.mode for e in tracer.events} == {"32"} and {e.vcpu for e in tracer.events} == {0}
    assert any((names.lookup(e.address) or ("",))[0].startswith("serial") for e in tracer.events)
    if backend.name == "kvm":
        assert len(tracer.events) == sum(result.exits.values())
        assert tracer.events[-1].name == "PioOut" and "port=244" in tracer.events[-1].text()


def test_exits_on_kvm_by_address(guest: Guest, kvm: Selection) -> None:
    everything, _ = traced(guest("hello"), "exits", kvm)
    address = everything.events[3].address
    tracer, _ = traced(guest("hello"), "exits", kvm, address=(address, address))
    assert {e.address for e in tracer.events} == {address}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exits"])
def test_what_kvm_cannot_show(kind: str, guest: Guest, kvm: Selection) -> None:
    with (
        pyhv.Vm(pyhv.Machine(guest("hello")), backend=kvm) as vm,
        pytest.raises(pyhv.CapabilityMissing, match=f"what: {kind}: on kvm only exits"),
    ):
        vm.trace(("exits", kind))


def test_what_makes_no_sense(guest: Guest, backend: Selection) -> None:
    with pyhv.Vm(pyhv.Machine(guest("hello")), backend=backend) as vm:
        with pytest.raises(pyhv.ConfigError, match="what: 'syscalls' is not one of exits, "):
            vm.trace(("syscalls",))
        with pytest.raises(pyhv.ConfigError, match="what: nothing"):
            vm.trace(())
        with pytest.raises(pyhv.ConfigError, match="limit: -1"):
            vm.trace(limit=-1)
        for address in ((2, 1), (-1, 1), (0, EVERYWHERE[1] + 1)):
            with pytest.raises(pyhv.ConfigError, match="address: "):
                vm.trace(address=address)
        vm.run(30)
        with pytest.raises(pyhv.ConfigError, match="before the machine is started"):
            vm.trace()
