"""What CPUID tells a guest: a template over what the backend supports, features added and masked, and the topology.

Sources: APM vol. 3, appendix E; Intel SDM vol. 2, CPUID; Documentation/virt/kvm/x86/cpuid.rst.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.x86.registers import CpuidEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KEPT = frozenset({"hypervisor", "x2apic", "tsc_deadline_timer", "ht", "cmp_legacy", "topoext"})
"""Features that come from the machine and not from a CPU model."""
_NEED_APIC_IN_BACKEND = ("x2apic", "tsc_deadline_timer", "kvm_pv_eoi", "kvm_pv_unhalt", "kvm_pv_ipi", "kvm_asyncpf_int")
_DYNAMIC = ("osxsave", "ospke")
"""Bits that follow CR4 while the guest runs."""
_OWN: dict[str, tuple[int, int | None, str, int]] = {
    "x2apic": (1, None, "ecx", 21),
    "tsc_deadline_timer": (1, None, "ecx", 24),
    "xsave": (1, None, "ecx", 26),
    "osxsave": (1, None, "ecx", 27),
    "hypervisor": (1, None, "ecx", 31),
    "ht": (1, None, "edx", 28),
    "ospke": (7, 0, "ecx", 4),
    "cmp_legacy": (0x8000_0001, None, "ecx", 1),
    "svm": (0x8000_0001, None, "ecx", 2),
    "topoext": (0x8000_0001, None, "ecx", 22),
}
"""Where the features are that every template sets or asks for: the whole table is imported for others only."""


def templates() -> tuple[str, ...]:
    """The names of the CPU templates."""
    from pyhv.x86.cpu_models import MODELS

    return ("host", "max", *MODELS)


def _place(name: str) -> tuple[int, int | None, str, int]:
    """Function, sub-leaf, register and bit of a feature."""
    own = _OWN.get(name)
    if own is not None:
        return own
    from pyhv.x86.cpuid_features import FEATURES

    f = FEATURES[name]
    return f.function, f.subleaf, f.register, f.bit


class _Table:
    """CPUID entries that can be changed, by (function, index); the index is None where the leaf has no sub-leaves."""

    def __init__(self, entries: Iterable[CpuidEntry]) -> None:
        self.leaves: dict[tuple[int, int | None], dict[str, int]] = {
            (e.function, e.index): {"eax": e.eax, "ebx": e.ebx, "ecx": e.ecx, "edx": e.edx} for e in entries
        }

    def get(self, function: int, index: int | None = None) -> dict[str, int] | None:
        return self.leaves.get((function, index))

    def put(self, function: int, index: int | None, eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> None:
        self.leaves[(function, index)] = {"eax": eax, "ebx": ebx, "ecx": ecx, "edx": edx}

    def drop(self, function: int) -> None:
        for key in [key for key in self.leaves if key[0] == function]:
            del self.leaves[key]

    def has(self, name: str) -> bool:
        function, subleaf, register, bit = _place(name)
        leaf = self.leaves.get((function, subleaf))
        return leaf is not None and bool(leaf[register] >> bit & 1)

    def set(self, name: str, on: bool) -> None:
        function, subleaf, register, bit = _place(name)
        leaf = self.leaves.get((function, subleaf))
        if leaf is None:
            if not on:
                return
            self.put(function, subleaf)
            leaf = self.leaves[(function, subleaf)]
        leaf[register] = leaf[register] & ~(1 << bit) | int(on) << bit

    def entries(self) -> list[CpuidEntry]:
        order = sorted(self.leaves.items(), key=lambda item: (item[0][0], -1 if item[0][1] is None else item[0][1]))
        return [CpuidEntry(f, i, leaf["eax"], leaf["ebx"], leaf["ecx"], leaf["edx"]) for (f, i), leaf in order]


def build(
    template: str,
    supported: Sequence[CpuidEntry],
    *,
    emulated: Sequence[CpuidEntry] = (),
    features: Sequence[str] = (),
    apic_id: int = 0,
    vcpus: int = 1,
    tsc_deadline: bool = True,
    in_backend_apic: bool = True,
) -> list[CpuidEntry]:
    """A vCPU's CPUID.

    - `template`: one of `templates()`. "host" is all that the backend supports, "max" also what it only emulates.
    - `features`: "+name" and "-name", applied in turn. What is added must be supported or emulated.
    - `apic_id`, `vcpus`: one package of `vcpus` cores, one thread each, APIC ids from 0 upwards.
    - `tsc_deadline`: whether the backend's local APIC timer has the TSC-deadline mode.

    Raises ConfigError for a name that does not exist, CapabilityMissing for a feature that the backend lacks.
    """
    table = _Table(supported)
    offered = _offered(supported, emulated) if emulated or features else table
    if template == "max" and emulated:
        table = _Table(offered.entries())
    if in_backend_apic and tsc_deadline:
        table.set("tsc_deadline_timer", True)
        offered.set("tsc_deadline_timer", True)
    if template not in ("host", "max"):
        _apply_model(table, template)
    table.set("hypervisor", True)
    if not in_backend_apic:
        for name in _NEED_APIC_IN_BACKEND:
            table.set(name, False)
    for change in features:
        _apply_change(table, offered, change)
    for name in _DYNAMIC:
        table.set(name, False)
    _topology(table, apic_id, vcpus)
    _tidy(table)
    return table.entries()


def _offered(supported: Iterable[CpuidEntry], emulated: Iterable[CpuidEntry]) -> _Table:
    """What may be asked for: also what is only emulated."""
    from pyhv.x86.cpuid_features import FEATURES

    offered, software = _Table(supported), _Table(emulated)
    for name in FEATURES:
        if software.has(name):
            offered.set(name, True)
    return offered


def parse_feature(change: str) -> tuple[str, bool]:
    """(name, added?) of "+name" or "-name". Raises ConfigError."""
    from pyhv.x86.cpuid_features import FEATURES, canonical

    sign, name = change[:1], canonical(change[1:])
    if sign not in ("+", "-"):
        raise ConfigError(f"features: {change!r}: write +name to add one, -name to mask one")
    if name is None:
        from difflib import get_close_matches

        near = get_close_matches(change[1:].lower().replace("-", "_"), FEATURES, 3)
        raise ConfigError(f"features: {change!r} is not known" + (f"; near it: {', '.join(near)}" if near else ""))
    return name, sign == "+"


def feature_names(entries: Sequence[CpuidEntry]) -> list[str]:
    """The names of the features that these entries show."""
    from pyhv.x86.cpuid_features import FEATURES

    table = _Table(entries)
    return [name for name in FEATURES if table.has(name)]


def _apply_change(table: _Table, offered: _Table, change: str) -> None:
    from pyhv.x86.cpuid_features import dependants

    name, added = parse_feature(change)
    if not added:
        for dependant in dependants(name):
            table.set(dependant, False)
    elif offered.has(name) or table.has(name):
        table.set(name, True)
    else:
        raise CapabilityMissing(f"features: {change!r}: this backend does not have it")


def _apply_model(table: _Table, name: str) -> None:
    from pyhv.x86.cpu_models import MODELS
    from pyhv.x86.cpuid_features import FEATURES

    model = MODELS.get(name)
    if model is None:
        raise ConfigError(f"cpu: {name!r} is not one of {', '.join(templates())}")
    missing = sorted(feature for feature in model.features if not table.has(feature))
    if missing:
        raise CapabilityMissing(f"cpu {name}: this backend lacks {', '.join(missing)}")
    wanted = model.features | model.optional | _KEPT
    for feature, place in FEATURES.items():
        if feature not in wanted and place.function != 0x4000_0001:
            table.set(feature, False)
    basic, extended, version = table.get(0), table.get(0x8000_0000), table.get(1)
    if model.vendor:
        ebx, edx, ecx = (int.from_bytes(model.vendor.encode()[i : i + 4], "little") for i in (0, 4, 8))
        for leaf in (basic, extended):
            if leaf is not None:
                leaf.update(ebx=ebx, ecx=ecx, edx=edx)
    if model.signature is not None and version is not None:
        version["eax"] = model.signature
    if model.brand:
        _brand(table, model.brand)


def _brand(table: _Table, brand: str) -> None:
    text = brand.encode()[:47].ljust(48, b"\0")
    for i in range(3):
        words = [int.from_bytes(text[i * 16 + j : i * 16 + j + 4], "little") for j in (0, 4, 8, 12)]
        table.put(0x8000_0002 + i, None, *words)


def _topology(table: _Table, apic_id: int, vcpus: int) -> None:
    bits = (vcpus - 1).bit_length()
    ids = 1 << bits
    many = vcpus > 1
    leaf = table.get(1)
    if leaf is not None:
        leaf["ebx"] = leaf["ebx"] & 0xFFFF | min(vcpus, 255) << 16 | (apic_id & 0xFF) << 24
    table.set("ht", many)
    amd = _vendor(table) in (b"AuthenticAMD", b"HygonGenuine")
    if amd:
        table.set("cmp_legacy", many)
    for key, leaf in table.leaves.items():
        if key[0] in (4, 0x8000_001D) and leaf["eax"] & 0x1F:
            shared = ids - 1 if leaf["eax"] >> 5 & 7 >= 3 else 0
            cores = min(ids - 1, 63) << 26 if key[0] == 4 else 0
            leaf["eax"] = leaf["eax"] & 0x3FFF | min(shared, 0xFFF) << 14 | cores
    for function in (0xB, 0x1F):
        if any(key[0] == function for key in table.leaves) or function == 0xB:
            table.drop(function)
            table.put(function, 0, 0, 1, 1 << 8, apic_id)
            table.put(function, 1, bits, vcpus, 2 << 8 | 1, apic_id)
            table.put(function, 2, 0, 0, 2, apic_id)
    basic = table.get(0)
    if basic is not None:
        basic["eax"] = max(basic["eax"], 0xB)
    leaf = table.get(0x8000_0008)
    if leaf is not None:
        leaf["ecx"] = leaf["ecx"] & ~0xF0FF | min(vcpus - 1, 0xFF) | bits << 12
    if amd and table.has("topoext"):
        table.put(0x8000_001E, None, apic_id, apic_id & 0xFF, 0, 0)
    table.drop(0x8000_0026)


def _vendor(table: _Table) -> bytes:
    leaf = table.get(0)
    if leaf is None:
        return b""
    return b"".join(leaf[r].to_bytes(4, "little") for r in ("ebx", "edx", "ecx"))


def _tidy(table: _Table) -> None:
    """What follows from features that are masked, and a name for a CPU that has none."""
    if not table.has("xsave"):
        table.drop(0xD)
    if not table.has("svm"):
        table.drop(0x8000_000A)
    if not any(value for i in (2, 3, 4) for value in (table.get(0x8000_0000 + i) or {}).values()):
        _brand(table, "pyhv virtual CPU")
