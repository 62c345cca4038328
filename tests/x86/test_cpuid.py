"""CPUID templates: features by name, topology for every number of vCPUs, models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.x86 import cpuid
from pyhv.x86.cpu_models import MODELS
from pyhv.x86.cpuid_features import ALIASES, FEATURES, NEEDS, canonical, dependants
from pyhv.x86.registers import CpuidEntry


def place(name: str) -> tuple[int, int | None, str, int]:
    """Where a feature's bit is."""
    feature = FEATURES[name]
    return feature.function, feature.subleaf, feature.register, feature.bit


def host(*names: str) -> list[CpuidEntry]:
    """A host that supports these features, in the leaves of an AMD CPU under KVM."""
    leaves: dict[tuple[int, int | None], dict[str, int]] = {
        (0, None): {"eax": 0x10, "ebx": 0x68747541, "ecx": 0x444D4163, "edx": 0x69746E65},
        (1, None): {"eax": 0xA10F11, "ebx": 0x05020800},
        (7, 0): {"eax": 1},
        (0xB, 0): {"ebx": 99},
        (0xD, 0): {"eax": 7},
        (0x4000_0000, None): {"eax": 0x4000_0001, "ebx": 0x4B4D564B, "ecx": 0x564B4D56, "edx": 0x4D},
        (0x8000_0000, None): {"eax": 0x8000_0021, "ebx": 0x68747541, "ecx": 0x444D4163, "edx": 0x69746E65},
        (0x8000_0008, None): {"eax": 0x3030, "ecx": 0x7001},
        (0x8000_001D, 0): {"eax": 0x121},
        (0x8000_001D, 3): {"eax": 0x4163},
        (0x8000_001E, None): {"eax": 55},
        (0x8000_0026, 0): {"eax": 1, "ebx": 3},
    }
    for name in names:
        function, index, register, bit = place(name)
        leaf = leaves.setdefault((function, index), {})
        leaf[register] = leaf.get(register, 0) | 1 << bit
    words = ("eax", "ebx", "ecx", "edx")
    return [CpuidEntry(f, i, *(leaf.get(word, 0) for word in words)) for (f, i), leaf in leaves.items()]


EVERYTHING = host(*FEATURES)
AMD = host("topoext", "x2apic", "kvmclock", "kvm_pv_eoi")


def find(entries: list[CpuidEntry], function: int, index: int | None = None) -> CpuidEntry:
    return next(e for e in entries if e.function == function and e.index == index)


def test_well_known_bits_are_where_the_manuals_put_them() -> None:
    assert place("svm") == (0x8000_0001, None, "ecx", 2)
    assert place("hypervisor") == (1, None, "ecx", 31)
    assert place("x2apic") == (1, None, "ecx", 21)
    assert place("tsc_deadline_timer") == (1, None, "ecx", 24)
    assert place("sse2") == (1, None, "edx", 26)
    assert place("ht") == (1, None, "edx", 28)
    assert place("avx2") == (7, 0, "ebx", 5)
    assert place("avx512vl") == (7, 0, "ebx", 31)
    assert place("umip") == (7, 0, "ecx", 2)
    assert place("rdpid") == (7, 0, "ecx", 22)
    assert place("fsrm") == (7, 0, "edx", 4)
    assert place("arch_capabilities") == (7, 0, "edx", 29)
    assert place("spec_ctrl_ssbd") == (7, 0, "edx", 31)
    assert place("lm") == (0x8000_0001, None, "edx", 29)
    assert place("nx") == (0x8000_0001, None, "edx", 20)
    assert place("pdpe1gb") == (0x8000_0001, None, "edx", 26)
    assert place("topoext") == (0x8000_0001, None, "ecx", 22)
    assert place("invtsc") == (0x8000_0007, None, "edx", 8)
    assert place("ibpb") == (0x8000_0008, None, "ebx", 12)
    assert place("virt_ssbd") == (0x8000_0008, None, "ebx", 25)
    assert place("avic") == (0x8000_000A, None, "edx", 13)
    assert place("x2avic") == (0x8000_000A, None, "edx", 18)
    assert place("vgif") == (0x8000_000A, None, "edx", 16)
    assert place("sev_snp") == (0x8000_001F, None, "eax", 4)
    assert place("autoibrs") == (0x8000_0021, None, "eax", 8)
    assert place("kvmclock_stable") == (0x4000_0001, None, "eax", 24)
    assert place("kvm_pv_unhalt") == (0x4000_0001, None, "eax", 7)


def test_no_two_features_share_a_bit() -> None:
    assert len({place(name) for name in FEATURES}) == len(FEATURES)
    assert all(0 <= feature.bit < 32 for feature in FEATURES.values())


def test_the_tables_name_only_features_that_exist() -> None:
    named = set(ALIASES.values()) | set(NEEDS) | set(NEEDS.values())
    for model in MODELS.values():
        named |= model.features | model.optional
    assert named <= set(FEATURES)


@pytest.mark.parametrize(
    ("written", "name"), [("SSE4.1", "sse4_1"), ("tsc-deadline", "tsc_deadline_timer"), ("sse3", "pni"), ("nope", None)]
)
def test_spellings(written: str, name: str | None) -> None:
    assert canonical(written) == name


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_topology(shape: tuple[int, int]) -> None:
    vcpus, apic_id = shape
    entries = cpuid.build("host", AMD, vcpus=vcpus, apic_id=apic_id)
    bits = (vcpus - 1).bit_length()
    one = find(entries, 1)
    assert one.ebx >> 24 == apic_id & 0xFF and one.ebx >> 16 & 0xFF == min(vcpus, 255)
    assert one.ebx & 0xFFFF == 0x0800
    assert bool(one.edx >> 28 & 1) == (vcpus > 1)
    smt, core, end = (find(entries, 0xB, i) for i in range(3))
    assert (smt.eax, smt.ebx, smt.ecx, smt.edx) == (0, 1, 0x100, apic_id)
    assert (core.eax, core.ebx, core.ecx, core.edx) == (bits, vcpus, 0x201, apic_id)
    assert (end.eax, end.ebx, end.ecx, end.edx) == (0, 0, 2, apic_id)
    sizes = find(entries, 0x8000_0008)
    assert sizes.ecx & 0xFF == min(vcpus - 1, 255) and sizes.ecx >> 12 & 0xF == bits
    extended = find(entries, 0x8000_001E)
    assert (extended.eax, extended.ebx & 0xFF, extended.ebx >> 8 & 0xFF) == (apic_id, apic_id & 0xFF, 0)
    assert find(entries, 0x8000_001D, 3).eax >> 14 & 0xFFF == (1 << bits) - 1
    assert find(entries, 0x8000_001D, 0).eax >> 14 & 0xFFF == 0
    assert not any(e.function == 0x8000_0026 for e in entries)


def test_the_hypervisor_shows_itself() -> None:
    entries = cpuid.build("host", AMD)
    assert find(entries, 1).ecx >> 31
    signature = find(entries, 0x4000_0000)
    assert (
        b"".join(x.to_bytes(4, "little") for x in (signature.ebx, signature.ecx, signature.edx)) == b"KVMKVMKVM\0\0\0"
    )


def test_the_local_apics_features_follow_where_it_is() -> None:
    inside = cpuid.build("host", AMD, tsc_deadline=True)
    assert {"x2apic", "tsc_deadline_timer", "kvm_pv_eoi"} <= set(cpuid.feature_names(inside))
    outside = cpuid.build("host", AMD, in_backend_apic=False)
    assert not {"x2apic", "tsc_deadline_timer", "kvm_pv_eoi"} & set(cpuid.feature_names(outside))
    assert "kvmclock" in cpuid.feature_names(outside)


def test_features_are_masked_with_what_needs_them() -> None:
    names = set(cpuid.feature_names(cpuid.build("host", EVERYTHING, features=["-xsave"])))
    assert not {"xsave", "avx", "avx2", "avx512vl", "xsaves"} & names and "sse2" in names
    entries = cpuid.build("host", EVERYTHING, features=["-xsave", "-SVM"])
    assert not any(e.function in (0xD, 0x8000_000A) for e in entries)
    assert dependants("avx512f") >= {"avx512f", "avx512vl"} and "avx" not in dependants("avx512f")


def test_features_are_added_only_where_the_backend_has_them() -> None:
    emulated = host("movbe")
    assert "movbe" not in cpuid.feature_names(cpuid.build("host", AMD, emulated=emulated))
    assert "movbe" in cpuid.feature_names(cpuid.build("max", AMD, emulated=emulated))
    assert "movbe" in cpuid.feature_names(cpuid.build("host", AMD, emulated=emulated, features=["+movbe"]))
    with pytest.raises(CapabilityMissing, match="movbe"):
        cpuid.build("host", AMD, features=["+movbe"])


def test_changes_apply_in_turn() -> None:
    assert "x2apic" in cpuid.feature_names(cpuid.build("host", AMD, features=["-x2apic", "+x2apic"]))
    assert "x2apic" not in cpuid.feature_names(cpuid.build("host", AMD, features=["+x2apic", "-x2apic"]))


@pytest.mark.parametrize(
    ("change", "words"), [("avx2", "write"), ("", "write"), ("+avx3", "avx2"), ("-", "not known"), ("*sse", "write")]
)
def test_feature_mistakes_in_one_line(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        cpuid.build("host", EVERYTHING, features=[change])
    assert "\n" not in str(caught.value)


@given(st.text(max_size=12))
def test_any_other_text_is_one_of_the_two_errors_or_a_feature(change: str) -> None:
    try:
        cpuid.build("host", AMD, features=[change])
    except (ConfigError, CapabilityMissing):
        return
    assert canonical(change[1:]) is not None


def test_an_unknown_template() -> None:
    with pytest.raises(ConfigError, match="host, max, x86-64-v1"):
        cpuid.build("i486", AMD)


@pytest.mark.parametrize("name", MODELS)
def test_models_show_their_features_and_no_others(name: str) -> None:
    model = MODELS[name]
    entries = cpuid.build(name, EVERYTHING)
    names = {n for n in cpuid.feature_names(entries) if not n.startswith("kvm")}
    assert model.features <= names
    assert names <= model.features | model.optional | {"hypervisor", "x2apic", "tsc_deadline_timer", "topoext"}
    if model.family:
        signature = find(entries, 1).eax
        assert (signature >> 8 & 15) + (signature >> 20 & 0xFF) == model.family
        assert signature >> 4 & 15 | signature >> 12 & 0xF0 == model.model
        assert find(entries, 0x8000_0002).ebx


def test_a_model_that_the_host_cannot_be_names_what_is_missing() -> None:
    with pytest.raises(CapabilityMissing, match=r"x86-64-v3.*avx2"):
        cpuid.build("x86-64-v3", AMD)


def test_entries_are_sorted_and_unique() -> None:
    entries = cpuid.build("host", EVERYTHING, vcpus=4)
    keys = [(e.function, -1 if e.index is None else e.index) for e in entries]
    assert keys == sorted(set(keys))


def test_the_features_that_templates_set_are_where_the_table_says() -> None:
    for name, place in cpuid._OWN.items():
        f = FEATURES[name]
        assert place == (f.function, f.subleaf, f.register, f.bit)


def test_templates_are_the_hosts_and_the_models() -> None:
    assert cpuid.templates() == ("host", "max", *MODELS)
