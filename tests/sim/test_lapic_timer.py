"""The simulated local APIC's timer: one shot, periodic, TSC deadline, dividers, masking (APM vol. 2, 16.4.1)."""

from collections.abc import Iterator

import pytest
from bare_machine import Bare, ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

EOI, SVR, IRR = 0xB0, 0xF0, 0x200
LVT_TIMER, INITIAL, CURRENT, DIVIDE = 0x320, 0x380, 0x390, 0x3E0
MASKED = 1 << 16
ONE_SHOT, PERIODIC, DEADLINE = 0, 1 << 17, 2 << 17
TSC_DEADLINE = 0x6E0
BY_ONE = 0xB
NEVER = (1 << 64) - 1
VECTOR = 0x30


@pytest.fixture
def bare() -> Iterator[Bare]:
    """A machine whose APIC timer counts TSC ticks, undivided."""
    machine = Bare()
    machine.write(SVR, 0x1FF)
    machine.write(DIVIDE, BY_ONE)
    yield machine
    machine.close()


def fired(bare: Bare) -> bool:
    return VECTOR in bare.bits(IRR)


def test_one_shot_fires_once_at_its_tick(bare: Bare) -> None:
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.write(INITIAL, 1000)
    start = bare.tsc()
    assert lib.sim_lapic_deadline(bare.cpus[0]) == start + 1000
    bare.pass_ticks(400)
    assert bare.read(CURRENT) == 600 and not fired(bare)
    bare.pass_ticks(599)
    assert bare.read(CURRENT) == 1 and not fired(bare)
    bare.pass_ticks(1)
    assert fired(bare) and bare.read(CURRENT) == 0 and bare.read(INITIAL) == 1000
    assert lib.sim_lapic_deadline(bare.cpus[0]) == NEVER


def test_periodic_keeps_its_phase(bare: Bare) -> None:
    bare.write(LVT_TIMER, PERIODIC | VECTOR)
    bare.write(INITIAL, 1000)
    start = bare.tsc()
    bare.pass_ticks(1300)
    assert fired(bare) and bare.read(CURRENT) == 700
    assert lib.sim_lapic_deadline(bare.cpus[0]) == start + 2000
    bare.pass_ticks(10_000)
    assert bare.read(CURRENT) == 700
    assert lib.sim_lapic_deadline(bare.cpus[0]) == start + 12_000


@pytest.mark.parametrize(("code", "divider"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)])
def test_dividers(bare: Bare, code: int, divider: int) -> None:
    bare.write(DIVIDE, code)
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.write(INITIAL, 10)
    assert lib.sim_lapic_deadline(bare.cpus[0]) == bare.tsc() + 10 * divider


def test_a_divider_that_changes_while_the_timer_runs(bare: Bare) -> None:
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.write(INITIAL, 1000)
    bare.pass_ticks(500)
    bare.write(DIVIDE, 0)
    assert bare.read(CURRENT) == 500
    assert lib.sim_lapic_deadline(bare.cpus[0]) == bare.tsc() + 1000


def test_a_count_of_zero_stops(bare: Bare) -> None:
    bare.write(LVT_TIMER, PERIODIC | VECTOR)
    bare.write(INITIAL, 1000)
    bare.write(INITIAL, 0)
    bare.pass_ticks(5000)
    assert not fired(bare) and bare.read(CURRENT) == 0


def test_a_masked_timer_counts_silently(bare: Bare) -> None:
    bare.write(LVT_TIMER, PERIODIC | MASKED | VECTOR)
    bare.write(INITIAL, 1000)
    assert lib.sim_lapic_deadline(bare.cpus[0]) == NEVER
    bare.pass_ticks(1500)
    assert not fired(bare) and bare.read(CURRENT) == 500
    bare.write(LVT_TIMER, PERIODIC | VECTOR)
    assert not fired(bare)
    bare.pass_ticks(500)
    assert fired(bare)


def test_a_one_shot_that_ended_masked_does_not_fire_when_unmasked(bare: Bare) -> None:
    bare.write(LVT_TIMER, ONE_SHOT | MASKED | VECTOR)
    bare.write(INITIAL, 1000)
    bare.pass_ticks(1500)
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.pass_ticks(1500)
    assert not fired(bare)


def test_one_shot_and_periodic_change_without_a_stop(bare: Bare) -> None:
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.write(INITIAL, 1000)
    bare.pass_ticks(300)
    bare.write(LVT_TIMER, PERIODIC | VECTOR)
    assert bare.read(CURRENT) == 700
    bare.pass_ticks(900)
    assert fired(bare) and bare.read(CURRENT) == 800


def test_tsc_deadline(bare: Bare) -> None:
    assert bare.wrmsr(TSC_DEADLINE, bare.tsc() + 50) and bare.rdmsr(TSC_DEADLINE) == 0, "ignored in another mode"
    bare.write(LVT_TIMER, DEADLINE | VECTOR)
    due = bare.tsc() + 5000
    bare.wrmsr(TSC_DEADLINE, due)
    bare.write(INITIAL, 10)
    assert bare.rdmsr(TSC_DEADLINE) == due and bare.read(CURRENT) == 0 and bare.read(INITIAL) == 0
    bare.pass_ticks(4999)
    assert not fired(bare)
    bare.pass_ticks(1)
    assert fired(bare) and bare.rdmsr(TSC_DEADLINE) == 0


def test_a_deadline_that_has_passed_fires_at_once_and_zero_disarms(bare: Bare) -> None:
    bare.pass_ticks(10_000)
    bare.write(LVT_TIMER, DEADLINE | VECTOR)
    bare.wrmsr(TSC_DEADLINE, bare.tsc() + 500)
    bare.wrmsr(TSC_DEADLINE, 0)
    bare.pass_ticks(1000)
    assert not fired(bare)
    bare.wrmsr(TSC_DEADLINE, 1)
    assert bare.taken() == VECTOR


def test_a_deadline_follows_the_guests_own_counter(bare: Bare) -> None:
    bare.write(LVT_TIMER, DEADLINE | VECTOR)
    bare.wrmsr(0x10, 1_000_000_000)
    bare.wrmsr(TSC_DEADLINE, 1_000_000_000 + 4000)
    assert 0 < lib.sim_lapic_deadline(bare.cpus[0]) - bare.tsc() <= 4000


def test_leaving_deadline_mode_disarms(bare: Bare) -> None:
    bare.write(LVT_TIMER, DEADLINE | VECTOR)
    bare.wrmsr(TSC_DEADLINE, bare.tsc() + 500)
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    assert lib.sim_lapic_deadline(bare.cpus[0]) == NEVER
    bare.write(INITIAL, 100)
    bare.write(LVT_TIMER, DEADLINE | VECTOR)
    bare.pass_ticks(1000)
    assert not fired(bare)


def test_the_interrupt_lands_on_its_instruction(bare: Bare) -> None:
    """A loop of one-byte instructions: the counter of retired ones tells where the interrupt came."""
    memory = ffi.buffer(bare.ram)
    memory[0x1000:0x1400] = b"\x90" * 0x400
    bare.write(LVT_TIMER, ONE_SHOT | VECTOR)
    bare.write(INITIAL, 10 * 123)
    before = lib.sim_icount(bare.cpus[0])
    assert bare.taken(budget=10_000) == VECTOR
    state = ffi.new("SimState *")
    lib.sim_get_state(bare.cpus[0], state)
    pushed = int.from_bytes(memory[state.gpr[4] : state.gpr[4] + 2], "little")
    assert pushed - 0x1000 == 123
    assert lib.sim_icount(bare.cpus[0]) - before == 123 + 2, "the delivery and the handler's HLT count too"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8])),
        st.tuples(st.just("write"), st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, NEVER)),
        st.tuples(st.just("write"), st.sampled_from(range(0, 0x400, 16)), st.just(4), st.integers(0, (1 << 32) - 1)),
        st.tuples(st.just("msr"), st.sampled_from([0x1B, 0x6E0, *range(0x800, 0x840)]), st.integers(0, NEVER)),
        st.tuples(st.just("base"), st.sampled_from([0xFEE0_0900, 0xFEE0_0D00, 0xFEE0_0100])),
        st.tuples(st.just("msi"), st.integers(0xFEE0_0000, 0xFEEF_FFFF), st.integers(0, 0xFFFF)),
        st.tuples(st.just("lint"), st.integers(-1, 2), st.booleans()),
        st.tuples(st.just("time"), st.integers(0, 1 << 40)),
        st.tuples(st.just("set"), st.binary(min_size=1024, max_size=1024)),
        st.tuples(st.just("run")),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
def test_whatever_a_guest_does_the_registers_stay_consistent(operations: list[tuple[object, ...]]) -> None:
    bare = Bare(2)
    cpu, value, page = bare.cpus[0], ffi.new("uint64_t *"), ffi.new("uint8_t[1024]")
    calls = {
        "read": lambda offset, size: lib.sim_lapic_mmio_read(cpu, offset, size, value),
        "write": lambda offset, size, v: lib.sim_lapic_mmio_write(cpu, offset, size, v),
        "msr": lambda index, v: (lib.sim_wrmsr(cpu, index, v), lib.sim_rdmsr(cpu, index, value)),
        "base": lambda v: lib.sim_wrmsr(cpu, 0x1B, v),
        "msi": lambda address, data: lib.sim_msi(bare.machine, address, data),
        "lint": lambda pin, level: lib.sim_lapic_lint(cpu, pin, level),
        "time": bare.pass_ticks,
        "set": lambda registers: lib.sim_lapic_set(cpu, registers),
        "run": lambda: lib.sim_run(cpu, 50),
    }
    for name, *arguments in operations:
        calls[str(name)](*arguments)
        lib.sim_lapic_get(cpu, page)
        registers = bytes(ffi.buffer(page))

        def register(offset: int, registers: bytes = registers) -> int:
            return int.from_bytes(registers[offset : offset + 4], "little")

        in_service = [i for i in range(256) if register(0x100 + i // 32 * 16) >> i % 32 & 1]
        top = max(in_service, default=0) & 0xF0
        assert register(0xA0) == (register(0x80) if register(0x80) >> 4 >= top >> 4 else top)
        assert not any(register(base) & 0xFFFF for base in (0x100, 0x200)), "no vector below 16"
        base = ffi.new("uint64_t *")
        assert lib.sim_rdmsr(cpu, 0x1B, base) == 0
        assert base[0] & 0xC00 != 0x400
    bare.close()
