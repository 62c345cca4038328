"""AMD-V and what stands on it. The processor must have a feature, and kvm_amd must have it switched on.

Sources: APM vol. 2, chapter 15 and APM vol. 3, appendix E (leaves 8000_0001, 8000_000A, 8000_001F);
Documentation/virt/kvm/x86/amd-memory-encryption.rst.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.doctor.finding import NO, UNKNOWN, YES, Finding
from pyhv.doctor.kvm import group_rule, no_hardware_fix

if TYPE_CHECKING:
    from pyhv.doctor.host import Host

_BITS = {
    "svm": (0x8000_0001, 2, 2),
    "npt": (0x8000_000A, 3, 0),
    "avic": (0x8000_000A, 3, 13),
    "x2avic": (0x8000_000A, 3, 18),
    "sev": (0x8000_001F, 0, 1),
    "sev_es": (0x8000_001F, 0, 3),
    "sev_snp": (0x8000_001F, 0, 4),
}
"""Leaf, register (EAX is 0) and bit."""
_HIDDEN = ("x2avic", "sev_snp")
"""Features that /proc/cpuinfo does not name on every kernel: their absence there says nothing."""
SEV_DEVICE = "/dev/sev"
SNP_KERNEL = (6, 11)
"""The first release whose kvm_amd runs SEV-SNP guests."""


def _raw(host: Host, feature: str) -> bool | None:
    """What CPUID says, where it can be asked."""
    leaf, register, bit = _BITS[feature]
    base = 0x8000_0000
    maximum = host.cpuid(base)
    if maximum is None:
        return None
    if maximum[0] < leaf:
        return False
    values = host.cpuid(leaf)
    return None if values is None else bool(values[register] >> bit & 1)


def _has(host: Host, feature: str) -> bool | None:
    """Whether the processor has it; None where neither /proc/cpuinfo nor CPUID tells."""
    if feature in host.flags:
        return True
    raw = _raw(host, feature)
    if raw is not None:
        return raw
    return None if feature in _HIDDEN or not host.flags else False


def svm(host: Host) -> Finding:
    """AMD-V itself."""
    if "svm" in host.flags:
        return Finding("SVM", YES, "the CPU has AMD-V (CPUID 8000_0001 ECX[2])")
    if not host.flags:
        return Finding("SVM", UNKNOWN, "/proc/cpuinfo cannot be read")
    if not host.amd:
        other = ", but VMX" if "vmx" in host.flags else ""
        return Finding("SVM", NO, f"the CPU is {host.vendor or 'unknown'}: it has no AMD-V{other}", "use an AMD host")
    if _raw(host, "svm"):
        return Finding("SVM", NO, "the CPU has AMD-V, but the firmware locked it (MSR VM_CR)", no_hardware_fix(host))
    where = "to this virtual machine" if host.virtual else "to this kernel"
    return Finding("SVM", NO, f"the CPU is AMD, but shows no AMD-V {where}", no_hardware_fix(host))


def _needs_kvm_amd(name: str, host: Host) -> Finding | None:
    """What is to say of a feature of kvm_amd where that is not what runs guests; None where it is."""
    if host.module == "kvm_amd":
        return None
    if "svm" not in host.flags:
        return Finding(name, NO, "it is a part of AMD-V, which this host does not show", svm(host).fix)
    if not host.module:
        return Finding(name, UNKNOWN, "kvm_amd is not loaded", host.sudo("modprobe kvm_amd"))
    return Finding(name, NO, f"/dev/kvm is {host.module}, not kvm_amd", host.sudo("modprobe kvm_amd"))


def nested_paging(host: Host) -> Finding:
    """Nested page tables (APM vol. 2, 15.25)."""
    early = _needs_kvm_amd("NPT", host)
    if early is not None:
        return early
    on = host.parameter("npt")
    if on:
        return Finding("NPT", YES, "kvm_amd uses nested paging (npt=Y)")
    if _has(host, "npt") is False:
        return Finding("NPT", NO, "the CPU has none (CPUID 8000_000A EDX[0]): guests run on shadow page tables")
    if on is None:
        return Finding("NPT", UNKNOWN, "kvm_amd does not show its parameter npt")
    return Finding("NPT", NO, "kvm_amd was loaded with npt=0: guests run on shadow page tables", host.reload("npt=1"))


def avic(host: Host) -> Finding:
    """The virtual interrupt controller (APM vol. 2, 15.29)."""
    early = _needs_kvm_amd("AVIC", host)
    if early is not None:
        return early
    on = host.parameter("avic")
    if on:
        return Finding("AVIC", YES, "kvm_amd uses it (avic=Y), but not for encrypted guests")
    if _has(host, "avic") is False:
        return Finding("AVIC", NO, "the CPU has none (CPUID 8000_000A EDX[13])")
    if on is None:
        return Finding("AVIC", UNKNOWN, f"kvm_amd shows avic={host.parameters.get('avic', 'nothing')}")
    return Finding("AVIC", NO, "the CPU has it, but kvm_amd was loaded with avic=N", host.reload("avic=1"))


def x2avic(host: Host) -> Finding:
    """AVIC for x2APIC guests (CPUID 8000_000A EDX[18])."""
    base = avic(host)
    if base.state == NO:
        return Finding("x2AVIC", NO, "there is no AVIC to extend" if not base.fix else base.reason, base.fix)
    has = _has(host, "x2avic")
    if has is None:
        reason = "this kernel does not show whether the CPU has it (CPUID 8000_000A EDX[18])"
        return Finding("x2AVIC", UNKNOWN, reason, f"{host.sudo('modprobe cpuid')}, then ask again")
    if not has:
        return Finding("x2AVIC", NO, "the CPU has none (CPUID 8000_000A EDX[18]): x2APIC guests get doorbells only")
    if base.state == UNKNOWN:
        return Finding("x2AVIC", UNKNOWN, base.reason, base.fix)
    return Finding("x2AVIC", YES, "the CPU has it, and AVIC is on")


def _sev_base(name: str, feature: str, host: Host) -> Finding | None:
    """What any kind of encrypted guest needs but its own switch; None where that is there."""
    early = _needs_kvm_amd(name, host)
    if early is not None:
        return early
    bit = _BITS[feature][2]
    has = _has(host, feature) if _has(host, "sev") is not False else False
    if has is False:
        return Finding(name, NO, f"the CPU has none (CPUID 8000_001F EAX[{bit}])")
    if feature not in host.flags and has and not host.parameter(feature) and feature not in _HIDDEN:
        return Finding(
            name,
            NO,
            "the CPU has it, but the firmware left memory encryption off (MSR SYSCFG[23])",
            "in the firmware setup switch SMEE (secure memory encryption) on",
        )
    return None


def _device(name: str, host: Host) -> Finding | None:
    """The secure processor's device."""
    if not host.exists(SEV_DEVICE):
        reason = f"kvm_amd has it on, but there is no {SEV_DEVICE}: the secure processor's driver is missing"
        return Finding(name, NO, reason, host.sudo("modprobe ccp"))
    if not host.accessible(SEV_DEVICE):
        reason = f"the user {host.user} may not open {SEV_DEVICE} ({host.mode(SEV_DEVICE)})"
        return Finding(name, NO, reason, group_rule(host, SEV_DEVICE))
    return None


def _asids(host: Host) -> tuple[int, int] | None:
    """How many encrypted guests the CPU has keys for, and the lowest ASID that is not one of SEV-ES's."""
    leaf = host.cpuid(0x8000_001F)
    return None if leaf is None else (leaf[2], leaf[3])


def sev(host: Host) -> Finding:
    """Encrypted guest memory."""
    early = _sev_base("SEV", "sev", host)
    if early is not None:
        return early
    if not host.parameter("sev"):
        return Finding("SEV", NO, "the CPU has it, but kvm_amd has it off (sev=N)", host.reload("sev=1"))
    asids = _asids(host)
    keys = f", {asids[0]} keys" if asids else ""
    return _device("SEV", host) or Finding("SEV", YES, f"kvm_amd has it on (sev=Y), {SEV_DEVICE} opens{keys}")


def sev_es(host: Host) -> Finding:
    """Encrypted guest registers as well."""
    early = _sev_base("SEV-ES", "sev_es", host)
    if early is not None:
        return early
    if not host.parameter("sev_es"):
        asids = _asids(host)
        if asids is not None and asids[1] <= 1:
            reason = "the CPU has it, but the firmware gave all keys to plain SEV (CPUID 8000_001F EDX is 1)"
            return Finding("SEV-ES", NO, reason, "in the firmware setup raise 'SEV-ES ASID space limit' above 1")
        return Finding("SEV-ES", NO, "the CPU has it, but kvm_amd has it off", host.reload("sev=1", "sev_es=1"))
    return _device("SEV-ES", host) or Finding("SEV-ES", YES, f"kvm_amd has it on (sev_es=Y), {SEV_DEVICE} opens")


def sev_snp(host: Host) -> Finding:
    """Memory integrity as well."""
    early = _sev_base("SEV-SNP", "sev_snp", host)
    if early is not None:
        return early
    if host.parameter("sev_snp"):
        return _device("SEV-SNP", host) or Finding("SEV-SNP", YES, f"kvm_amd has it on (sev_snp=Y), {SEV_DEVICE} opens")
    if "sev_snp" not in host.parameters:
        release = ".".join(map(str, host.kernel))
        reason = f"this kernel ({release}) runs no SEV-SNP guests"
        return Finding("SEV-SNP", NO, reason, f"boot a kernel of release {'.'.join(map(str, SNP_KERNEL))} or newer")
    if _has(host, "sev_snp") is None:
        return Finding(
            "SEV-SNP", NO, "kvm_amd has it off (sev_snp=N); whether the CPU has it, this kernel does not show"
        )
    fix = f"in the firmware setup switch SNP memory (RMP table) and the IOMMU on; then {host.reload('sev_snp=1')}"
    return Finding("SEV-SNP", NO, "the CPU has it, but kvm_amd has it off (sev_snp=N)", fix)
