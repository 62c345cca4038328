"""Several processors: INIT and SIPI, interrupts between them, atomics."""

from pyhv.hv.api import Vcpu
from pyhv.hv.exits import Exit, PioOut
from pyhv.x86.registers import MpState

from . import apic
from .asm import assemble
from .bench import Bench
from .conftest import Maker

ICR_LOW = apic.LAPIC + 0x300
ICR_HIGH = apic.LAPIC + 0x310
TRAMPOLINE = 0x9000
COUNTER = 0x5000

WAKE_OTHERS = (
    f"mov dword ptr [{ICR_LOW}], 0xC4500\n"  # INIT to all but self
    f"mov ecx, 100; pause_: dec ecx; jnz pause_\n"
    f"mov dword ptr [{ICR_LOW}], {0xC4600 | TRAMPOLINE >> 12}\n"
)


def _trampoline(bench: Bench, code: str) -> None:
    bench.vm.memory.write(TRAMPOLINE, assemble(code, bits=16, org=TRAMPOLINE & 0xFFF))


def test_application_processors_wait_for_a_sipi(make: Maker) -> None:
    bench = make(vcpus=2)
    boot, other = bench.add_vcpu(), bench.add_vcpu()
    assert boot.mp_state is MpState.RUNNABLE
    assert other.mp_state is MpState.UNINITIALIZED


def test_init_and_sipi_start_every_processor_at_its_vector(make: Maker) -> None:
    bench = make(vcpus=4)
    for _ in range(4):
        bench.add_vcpu()
    _trampoline(bench, "mov ax, cs; out 0xe8, ax; cli; stop: hlt; jmp stop")
    bench.load(apic.ENABLE + WAKE_OTHERS + "cli; stop: hlt; jmp stop")
    seen: dict[int, int] = {}

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, PioOut) and exit.port == 0xE8:
            seen[vcpu.index] = int.from_bytes(exit.data, "little")
        return len(seen) == 3

    bench.run_all(handle)
    assert seen == {1: TRAMPOLINE >> 4, 2: TRAMPOLINE >> 4, 3: TRAMPOLINE >> 4}


def test_locked_increments_from_all_processors_add_up(make: Maker) -> None:
    bench = make(vcpus=3)
    for _ in range(3):
        bench.add_vcpu()
    loop = f"mov cx, 300; more: lock inc dword ptr [{COUNTER}]; loop more; out 0xe8, al; cli; stop: hlt; jmp stop"
    _trampoline(bench, "xor ax, ax; mov ds, ax; " + loop)
    bench.load(
        apic.ENABLE
        + WAKE_OTHERS
        + f"mov ecx, 300; more: lock inc dword ptr [{COUNTER}]; loop more; out 0xe8, al; cli; stop: hlt; jmp stop"
    )
    finished: set[int] = set()

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, PioOut):
            finished.add(vcpu.index)
        return len(finished) == 3

    bench.run_all(handle)
    assert bench.vm.memory.read_uint(COUNTER, 4) == 900


def test_an_interrupt_from_one_processor_to_another(make: Maker) -> None:
    bench = make(vcpus=2)
    boot, other = bench.add_vcpu(), bench.add_vcpu()
    handler = 0x1800
    bench.vm.memory.write(handler, assemble(apic.handler("handler", 0x99), bits=32, org=handler))
    bench.gate(0x45, handler)
    bench.load(apic.ENABLE + f"mov byte ptr [{COUNTER}], 1\n" + apic.WAIT, at=0x6000, vcpu=other)
    other.mp_state = MpState.RUNNABLE
    bench.load(
        apic.ENABLE
        + f"ready: cmp byte ptr [{COUNTER}], 1; jne ready\n"
        + f"mov dword ptr [{ICR_HIGH}], {1 << 24}; mov dword ptr [{ICR_LOW}], 0x4045; cli; stop: hlt; jmp stop",
        vcpu=boot,
    )
    general = other.general
    general.rsp = 0x7000
    other.general = general
    where: list[int] = []

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        if isinstance(exit, PioOut):
            assert exit.data == b"\x99"
            where.append(vcpu.index)
        return bool(where)

    bench.run_all(handle)
    assert where == [1]


def test_each_processor_reads_its_own_apic_id(make: Maker) -> None:
    bench = make(vcpus=2)
    for index in range(2):
        vcpu = bench.add_vcpu()
        bench.load(
            f"mov eax, [{apic.LAPIC + 0x20}]; shr eax, 24; out 0xe9, eax; mov eax, 1; cpuid; shr ebx, 24; mov eax, ebx; "
            "out 0xe9, eax; mov eax, 0xB; xor ecx, ecx; cpuid; mov eax, edx; out 0xe9, eax",
            vcpu=vcpu,
        )
        vcpu.mp_state = MpState.RUNNABLE
        assert bench.output(3, vcpu=vcpu) == [index] * 3
