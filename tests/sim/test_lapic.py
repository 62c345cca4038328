"""The simulated local APIC (APM vol. 2, chapter 16): priorities, messages, EOIs, errors, the local vector table."""

from collections.abc import Callable, Iterator

import pytest
from bare_machine import Bare, ffi, lib

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x350, 0x360, 0x370
MASKED, LEVEL, ASSERT = 1 << 16, 1 << 15, 1 << 14
FIXED, LOWEST, SMI, NMI, INIT, SIPI, EXTINT = (n << 8 for n in (0, 1, 2, 4, 5, 6, 7))
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
APIC_BASE = 0x1B
ENABLED, X2APIC = 0x800, 0x400

Maker = Callable[..., Bare]


@pytest.fixture
def make() -> Iterator[Maker]:
    """Machines with their local APICs switched on."""
    made: list[Bare] = []

    def maker(cpus: int = 1, **options: object) -> Bare:
        bare = Bare(cpus, **options)  # type: ignore[arg-type]
        made.append(bare)
        for index in range(cpus):
            bare.write(SVR, 0x1FF, index)
        return bare

    yield maker
    for bare in made:
        bare.close()


@pytest.fixture
def one(make: Maker) -> Bare:
    return make()


def wants_init(bare: Bare, index: int) -> tuple[int, int]:
    """The pending kind (1 INIT, 2 SIPI) and the SIPI's vector."""
    vector = ffi.new("uint32_t *")
    return int(lib.sim_take_init(bare.cpus[index], vector)), int(vector[0])


def nmi_pending(bare: Bare, index: int = 0) -> bool:
    state = ffi.new("SimState *")
    lib.sim_get_state(bare.cpus[index], state)
    return bool(state.nmi_pending)


def test_registers_after_reset() -> None:
    bare = Bare(2)
    assert [bare.read(ID, i) for i in (0, 1)] == [0, 1 << 24]
    assert bare.read(VERSION) & 0xFF in range(0x10, 0x16)
    assert bare.read(DFR) == 0xFFFF_FFFF and bare.read(SVR) == 0xFF
    assert all(bare.read(lvt) == MASKED for lvt in (LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR))
    assert bare.rdmsr(APIC_BASE, 0) == 0xFEE0_0900 and bare.rdmsr(APIC_BASE, 1) == 0xFEE0_0800
    bare.close()


def test_an_interrupt_goes_from_request_to_service_to_its_end(one: Bare) -> None:
    assert one.taken() is None
    assert one.msi(0x40) == 1
    assert one.bits(IRR) == {0x40} and one.bits(ISR) == set()
    assert one.taken() == 0x40
    assert one.bits(IRR) == set() and one.bits(ISR) == {0x40} and one.read(PPR) == 0x40
    one.write(EOI, 0)
    assert one.bits(ISR) == set() and one.read(PPR) == 0


def test_an_eoi_of_nothing_is_ignored(one: Bare) -> None:
    one.write(EOI, 0)
    assert one.bits(ISR) == set() and lib.sim_eoi_vector(one.cpus[0]) == -1


def test_the_highest_vector_is_taken_first_and_lower_classes_wait(one: Bare) -> None:
    for vector in (0x31, 0x52, 0x58, 0x3F):
        one.msi(vector)
    assert one.taken() == 0x58
    assert one.leave_handler() is None, "same class and below wait for the EOI"
    one.write(EOI, 0)
    assert one.taken() == 0x52
    one.msi(0x91)
    one.place(one.cpus[0])
    assert one.taken() == 0x91, "a higher class interrupts the handler"
    assert one.bits(ISR) == {0x52, 0x91}
    one.write(EOI, 0)
    assert one.bits(ISR) == {0x52}


@pytest.mark.parametrize(("tpr", "vector", "taken"), [(0x40, 0x4F, False), (0x3F, 0x40, True), (0xF0, 0xFF, False)])
def test_the_task_priority_holds_back_its_class_and_below(one: Bare, tpr: int, vector: int, taken: bool) -> None:
    one.write(TPR, tpr)
    assert one.read(PPR) == tpr
    one.msi(vector)
    assert one.taken() == (vector if taken else None)
    if not taken:
        one.write(TPR, 0)
        one.place(one.cpus[0])
        assert one.taken() == vector


def test_the_processor_priority_is_the_higher_of_task_and_service(one: Bare) -> None:
    one.msi(0x65)
    assert one.taken() == 0x65
    for tpr, ppr in ((0x10, 0x60), (0x63, 0x63), (0x70, 0x70)):
        one.write(TPR, tpr)
        assert one.read(PPR) == ppr


def test_level_triggered_vectors_are_broadcast_at_their_eoi(one: Bare) -> None:
    one.msi(0x40 | LEVEL | ASSERT)
    assert one.bits(TMR) == {0x40}
    one.taken()
    one.write(EOI, 0)
    assert lib.sim_eoi_vector(one.cpus[0]) == 0x40
    assert lib.sim_eoi_vector(one.cpus[0]) == -1
    one.msi(0x40)
    assert one.bits(TMR) == set(), "the trigger mode is that of the last message"
    one.leave_handler()
    one.write(EOI, 0)
    assert lib.sim_eoi_vector(one.cpus[0]) == -1


def test_a_run_stops_for_the_host_after_a_level_triggered_eoi(one: Bare) -> None:
    one.msi(0x40 | LEVEL | ASSERT)
    one.taken()
    one.write(EOI, 0)
    assert lib.sim_run(one.cpus[0], 100) == lib.SIM_STOP_EOI


def test_a_disabled_apic_takes_no_messages_but_keeps_its_requests(one: Bare) -> None:
    one.write(TPR, 0xFF)
    one.msi(0x77)
    one.write(SVR, 0xFF)
    assert one.msi(0x78) == 0
    assert one.bits(IRR) == {0x77}
    one.write(TPR, 0)
    assert one.taken() == 0x77


def test_disabling_masks_the_local_vector_table_and_holds_the_mask(one: Bare) -> None:
    one.write(LVT_TIMER, 0x30)
    assert one.read(LVT_TIMER) == 0x30
    one.write(SVR, 0xFF)
    assert one.read(LVT_TIMER) == MASKED | 0x30
    one.write(LVT_TIMER, 0x31)
    assert one.read(LVT_TIMER) == MASKED | 0x31
    one.write(SVR, 0x1FF)
    assert one.read(LVT_TIMER) == MASKED | 0x31
    one.write(LVT_TIMER, 0x31)
    assert one.read(LVT_TIMER) == 0x31


# Destinations


def test_physical_destinations(make: Maker) -> None:
    bare = make(3)
    assert bare.msi(0x40, dest=1) == 1
    assert [bare.bits(IRR, i) for i in range(3)] == [set(), {0x40}, set()]
    assert bare.msi(0x41, dest=0xFF) == 3
    assert bare.msi(0x42, dest=9) == 0


def test_flat_logical_destinations(make: Maker) -> None:
    bare = make(3)
    for i in range(3):
        bare.write(LDR, 1 << 24 + i, i)
    assert bare.msi(0x40, dest=0b101, logical=True) == 2
    assert [bare.bits(IRR, i) for i in range(3)] == [{0x40}, set(), {0x40}]
    assert bare.msi(0x41, dest=0xF8, logical=True) == 0


def test_cluster_logical_destinations(make: Maker) -> None:
    bare = make(4)
    for i, ldr in enumerate((0x11, 0x12, 0x21, 0x28)):
        bare.write(DFR, 0x0FFF_FFFF, i)
        bare.write(LDR, ldr << 24, i)
    assert bare.msi(0x40, dest=0x13, logical=True) == 2
    assert bare.msi(0x41, dest=0x29, logical=True) == 2
    assert bare.msi(0x42, dest=0xF1, logical=True) == 2, "cluster 15 is every cluster"
    assert [bare.bits(IRR, i) for i in range(4)] == [{0x40, 0x42}, {0x40}, {0x41, 0x42}, {0x41}]


def test_the_lowest_priority_takes_it_and_equals_take_turns(make: Maker) -> None:
    bare = make(3)
    for i, tpr in enumerate((0x30, 0x20, 0x20)):
        bare.write(LDR, 1 << 24 + i, i)
        bare.write(TPR, tpr, i)
    for vector in range(0x21, 0x25):
        assert bare.msi(vector | LOWEST, dest=7, logical=True) == 1
    assert bare.bits(IRR, 0) == set()
    assert len(bare.bits(IRR, 1)) == len(bare.bits(IRR, 2)) == 2


def test_what_is_requested_counts_in_arbitration(make: Maker) -> None:
    bare = make(2)
    for i in range(2):
        bare.write(LDR, 1 << 24 + i, i)
    bare.msi(0x90, dest=0)
    assert bare.msi(0x91 | LOWEST, dest=3, logical=True) == 1
    assert bare.bits(IRR, 1) == {0x91}


def test_a_redirection_hint_makes_a_fixed_logical_message_one_of_lowest_priority(make: Maker) -> None:
    bare = make(2)
    for i in range(2):
        bare.write(LDR, 1 << 24 + i, i)
    assert bare.msi(0x40, dest=3, logical=True, redirect=True) == 1


@pytest.mark.parametrize("address", [0xFED0_0000, 0xFEF0_0000, 0x1_FEE0_0000, 0])
def test_a_message_elsewhere_is_nobodys(one: Bare, address: int) -> None:
    assert lib.sim_msi(one.machine, address, 0x40) == 0
    assert one.bits(IRR) == set()


# Messages between processors


def test_shorthands(make: Maker) -> None:
    bare = make(3)
    for shorthand, takers in ((SELF, {1}), (ALL, {0, 1, 2}), (OTHERS, {0, 2})):
        vector = 0x40 + (shorthand >> 18)
        bare.write(ICR, vector | shorthand | ASSERT, 1)
        assert {i for i in range(3) if vector in bare.bits(IRR, i)} == takers


def test_the_interrupt_command_register_addresses_one(make: Maker) -> None:
    bare = make(3)
    bare.write(ICR_HIGH, 2 << 24)
    bare.write(ICR, 0x55 | ASSERT)
    assert [bare.bits(IRR, i) for i in range(3)] == [set(), set(), {0x55}]
    assert bare.read(ICR) == 0x55 | ASSERT and bare.read(ICR_HIGH) == 2 << 24


def test_nmis_reach_even_a_disabled_apic(make: Maker) -> None:
    bare = make(2)
    bare.write(SVR, 0xFF, 1)
    bare.write(ICR_HIGH, 1 << 24)
    bare.write(ICR, NMI | ASSERT)
    assert nmi_pending(bare, 1) and not nmi_pending(bare, 0)


def test_init_and_start_up(make: Maker) -> None:
    bare = make(2)
    lib.sim_vapic_enable(bare.cpus[1], 1)
    bare.write(ICR_HIGH, 1 << 24)
    bare.write(ICR, SIPI | 0x12 | ASSERT)
    assert wants_init(bare, 1) == (0, 0), "a running processor does not listen to start-up messages"
    bare.write(ICR, INIT | ASSERT | LEVEL)
    bare.write(ICR, INIT | LEVEL)
    bare.write(ICR, SIPI | 0x34 | ASSERT)
    assert wants_init(bare, 1)[0] == 1
    assert wants_init(bare, 1) == (2, 0x34)
    assert wants_init(bare, 1)[0] == 0


def test_an_init_resets_the_apic_but_keeps_its_identity(make: Maker) -> None:
    bare = make(2)
    bare.write(TPR, 0x50, 1)
    bare.msi(0x44, dest=1)
    lib.sim_reset(bare.cpus[1], 1)
    assert bare.read(TPR, 1) == 0 and bare.bits(IRR, 1) == set() and bare.read(SVR, 1) == 0xFF
    assert bare.read(ID, 1) == 1 << 24


# Errors


def test_illegal_vectors_are_reported_by_sender_and_receiver(make: Maker) -> None:
    bare = make(2)
    bare.write(ICR, 0x0F | SELF)
    assert bare.read(ESR) == 0, "the register changes when it is written"
    bare.write(ESR, 0)
    assert bare.read(ESR) == 1 << 5
    bare.write(ESR, 0)
    assert bare.read(ESR) == 0
    assert bare.msi(0x05, dest=1) == 1
    bare.write(ESR, 0, 1)
    assert bare.read(ESR, 1) == 1 << 6 and bare.bits(IRR, 1) == set()


def test_errors_interrupt_once(one: Bare) -> None:
    one.write(LVT_ERROR, 0xE0)
    one.write(ICR, 0x01 | SELF)
    assert one.bits(IRR) == {0xE0}
    one.taken()
    one.write(EOI, 0)
    one.write(ICR, 0x01 | SELF)
    assert one.bits(IRR) == set(), "the same error is latched already"


def test_an_error_interrupt_that_is_itself_illegal_ends(one: Bare) -> None:
    one.write(LVT_ERROR, 0x02)
    one.write(ICR, 0x01 | SELF)
    one.write(ESR, 0)
    assert one.read(ESR) == 1 << 5 | 1 << 6


def test_registers_that_do_not_exist(one: Bare) -> None:
    one.write(0x40, 1)
    assert one.read(0x3F0) == 0
    one.write(ESR, 0)
    assert one.read(ESR) == 1 << 7


# LINT0 and LINT1


def test_lint0_as_extint(one: Bare) -> None:
    cpu = one.cpus[0]
    lib.sim_lapic_lint(cpu, 0, 1)
    assert one.taken() is None, "masked"
    one.write(LVT_LINT0, EXTINT)
    assert lib.sim_run(cpu, 100) == lib.SIM_STOP_EXTINT
    lib.sim_extint_vector(cpu, 0x08)
    lib.sim_lapic_lint(cpu, 0, 0)
    assert one.taken() == 0x08
    assert one.bits(ISR) == set(), "external interrupts are not the local APIC's"


def test_a_switched_off_apic_lets_the_pins_through(one: Bare) -> None:
    assert one.wrmsr(APIC_BASE, 0xFEE0_0100)
    lib.sim_lapic_lint(one.cpus[0], 0, 1)
    assert lib.sim_run(one.cpus[0], 100) == lib.SIM_STOP_EXTINT
    lib.sim_lapic_lint(one.cpus[0], 0, 0)
    lib.sim_lapic_lint(one.cpus[0], 1, 1)
    assert nmi_pending(one)


def test_lint1_as_nmi_is_an_edge(one: Bare) -> None:
    one.write(LVT_LINT1, NMI)
    lib.sim_lapic_lint(one.cpus[0], 1, 1)
    assert nmi_pending(one)
    assert one.taken() == 2
    lib.sim_lapic_lint(one.cpus[0], 1, 1)
    assert not nmi_pending(one)


def test_lint0_fixed_and_level_triggered_comes_again_while_the_line_is_high(one: Bare) -> None:
    one.write(LVT_LINT0, 0x60 | LEVEL)
    lib.sim_lapic_lint(one.cpus[0], 0, 1)
    assert one.read(LVT_LINT0) & 1 << 14, "remote IRR"
    assert one.taken() == 0x60
    one.write(EOI, 0)
    assert one.bits(IRR) == {0x60}
    one.place(one.cpus[0])
    assert one.taken() == 0x60
    lib.sim_lapic_lint(one.cpus[0], 0, 0)
    one.write(EOI, 0)
    assert one.bits(IRR) == set() and not one.read(LVT_LINT0) & 1 << 14
    assert lib.sim_eoi_vector(one.cpus[0]) == -1, "a pin's EOI is no I/O APIC's business"


# Enabling, modes


def test_the_enable_bit_cleared_and_set_again_is_a_power_up(one: Bare) -> None:
    one.write(TPR, 0x70)
    one.msi(0x99)
    assert one.wrmsr(APIC_BASE, 0xFEE0_0100)
    assert one.msi(0x9A) == 0
    assert one.read(ID) == 0xFFFF_FFFF, "no register answers"
    assert one.wrmsr(APIC_BASE, 0xFEE0_0900)
    assert one.read(TPR) == 0 and one.read(SVR) == 0xFF and one.bits(IRR) == set()
    one.write(SVR, 0x1FF)
    one.msi(0x9B)
    assert one.taken() == 0x9B


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (ENABLED, ENABLED | X2APIC, True),
        (ENABLED, X2APIC, False),
        (ENABLED, 0, True),
        (ENABLED | X2APIC, ENABLED, False),
        (ENABLED | X2APIC, 0, True),
        (ENABLED | X2APIC, X2APIC, False),
        (0, ENABLED | X2APIC, False),
        (0, X2APIC, False),
        (0, ENABLED, True),
    ],
)
def test_transitions_between_modes(one: Bare, before: int, after: int, allowed: bool) -> None:
    if before != ENABLED:
        assert one.wrmsr(APIC_BASE, 0xFEE0_0100 | before)
    assert one.wrmsr(APIC_BASE, 0xFEE0_0100 | after) == allowed
    assert one.rdmsr(APIC_BASE) == 0xFEE0_0100 | (after if allowed else before)


@pytest.mark.parametrize("bits", [1, 0x80, 0x200, 1 << 52, 1 << 40])
def test_reserved_bits_of_the_base(one: Bare, bits: int) -> None:
    assert not one.wrmsr(APIC_BASE, 0xFEE0_0900 | bits)


@pytest.fixture
def x2(make: Maker) -> Bare:
    """Three processors in x2APIC mode."""
    bare = make(3)
    for i in range(3):
        assert bare.wrmsr(APIC_BASE, (bare.rdmsr(APIC_BASE, i) or 0) | X2APIC, i)
    return bare


def test_x2apic_registers(x2: Bare) -> None:
    assert x2.rdmsr(0x802, 2) == 2 and x2.rdmsr(0x80D, 2) == 1 << 2
    assert x2.read(ID) == 0xFFFF_FFFF, "memory-mapped access is off"
    assert x2.wrmsr(0x808, 0x20) and x2.rdmsr(0x808) == 0x20 and x2.rdmsr(0x80A) == 0x20
    for index in (0x802, 0x803, 0x80A, 0x80D, 0x810, 0x839):
        assert x2.rdmsr(index) is not None and not x2.wrmsr(index, 0)
    for index in (0x800, 0x804, 0x809, 0x80C, 0x80E, 0x82F, 0x831, 0x83A, 0x840, 0x8FF):
        assert x2.rdmsr(index) is None and not x2.wrmsr(index, 0)
    assert x2.rdmsr(0x80B) is None and x2.rdmsr(0x83F) is None


@pytest.mark.parametrize(
    ("index", "value"),
    [(0x80B, 1), (0x828, 1), (0x808, 0x100), (0x80F, 1 << 20), (0x830, 1 << 12 | 1 << 20), (0x832, 1 << 19),
     (0x83F, 0x100), (0x83E, 4), (0x808, 1 << 32)],
)  # fmt: skip
def test_x2apic_reserved_bits(x2: Bare, index: int, value: int) -> None:
    assert not x2.wrmsr(index, value)


def test_x2apic_messages(x2: Bare) -> None:
    assert x2.wrmsr(0x830, 2 << 32 | 0x40)
    assert x2.wrmsr(0x830, (1 << 1 | 1 << 2) << 32 | 0x800 | 0x41)
    assert x2.wrmsr(0x830, 0xFFFF_FFFF << 32 | 0x42)
    assert x2.rdmsr(0x830) == 0xFFFF_FFFF << 32 | 0x42
    assert x2.wrmsr(0x83F, 0x43, 1)
    pending = [{v for v in range(0x40, 0x44) if (x2.rdmsr(0x820 + v // 32, i) or 0) >> v % 32 & 1} for i in range(3)]
    assert pending == [{0x42}, {0x41, 0x42, 0x43}, {0x40, 0x41, 0x42}]


def test_x2apic_is_not_entered_where_cpuid_does_not_show_it(make: Maker) -> None:
    bare = make(1, features=("-x2apic",))
    assert not bare.wrmsr(APIC_BASE, 0xFEE0_0D00)
    assert bare.rdmsr(0x802) is None


def test_x2apic_registers_fault_in_xapic_mode(one: Bare) -> None:
    assert one.rdmsr(0x802) is None and not one.wrmsr(0x808, 0)


# State


def test_state_round_trip(make: Maker) -> None:
    source, target = make(), make()
    source.write(TPR, 0x21)
    source.write(LVT_LINT0, EXTINT)
    source.msi(0x66 | LEVEL | ASSERT)
    source.msi(0x88)
    source.taken()
    page = ffi.new("uint8_t[1024]")
    lib.sim_lapic_get(source.cpus[0], page)
    lib.sim_lapic_set(target.cpus[0], page)
    again = ffi.new("uint8_t[1024]")
    lib.sim_lapic_get(target.cpus[0], again)
    assert bytes(ffi.buffer(page)) == bytes(ffi.buffer(again))
    assert target.bits(ISR) == {0x88} and target.bits(TMR) == {0x66} and target.bits(IRR) == {0x66}
