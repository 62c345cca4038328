"""CPUID feature bits by name (APM vol. 3, appendix E; Intel SDM vol. 2, CPUID; Documentation/virt/kvm/x86/cpuid.rst).

Names are those of /proc/cpuinfo; a few that it does not show carry KVM's own.
"""

from __future__ import annotations

from pyhv.record import record


@record
class Feature:
    """Where a feature's bit is; `subleaf` is None where the leaf has no sub-leaves."""

    function: int
    subleaf: int | None
    register: str
    bit: int


def _word(function: int, subleaf: int | None, register: str, names: str) -> dict[str, Feature]:
    """Features of one register: names from bit 0 upwards, "-" where a bit has no name here."""
    return {
        name: Feature(function, subleaf, register, bit)
        for bit, name in enumerate(names.split())
        if not name.startswith("-")
    }


FEATURES: dict[str, Feature] = {
    **_word(
        1,
        None,
        "ecx",
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca "
        "sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor",
    ),
    **_word(
        1,
        None,
        "edx",
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx "
        "fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    **_word(6, None, "eax", "dtherm ida arat"),
    **_word(
        7,
        0,
        "ebx",
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a "
        "avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd "
        "sha_ni avx512bw avx512vl",
    ),
    **_word(
        7,
        0,
        "ecx",
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni "
        "avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri "
        "movdir64b enqcmd - pks",
    ),
    **_word(
        7,
        0,
        "edx",
        "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk "
        "- arch_lbr - ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d "
        "arch_capabilities core_capabilities spec_ctrl_ssbd",
    ),
    **_word(
        7,
        1,
        "eax",
        "- - - - avx_vnni avx512_bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs - - amx_fp16 - avx_ifma",
    ),
    **_word(0xD, 1, "eax", "xsaveopt xsavec xgetbv1 xsaves xfd"),
    **_word(
        0x4000_0001,
        None,
        "eax",
        "kvmclock kvm_nopiodelay kvm_mmu kvmclock2 kvm_asyncpf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt - "
        "kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield kvm_asyncpf_int "
        "kvm_msi_ext_dest_id kvm_hc_map_gpa_range kvm_migration_control - - - - - - kvmclock_stable",
    ),
    **_word(
        0x8000_0001,
        None,
        "ecx",
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit "
        "wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc "
        "mwaitx",
    ),
    **_word(
        0x8000_0001,
        None,
        "edx",
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    **_word(0x8000_0007, None, "edx", "- - - - - - - - invtsc cpb"),
    **_word(
        0x8000_0008,
        None,
        "ebx",
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - stibp_always_on - - - - - "
        "amd_ppin amd_ssbd virt_ssbd ssb_no cppc amd_psfd btc_no ibpb_ret",
    ),
    **_word(
        0x8000_000A,
        None,
        "edx",
        "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - "
        "pfthreshold avic - v_vmsave_vmload vgif - x2avic - v_spec_ctrl - - - - vnmi",
    ),
    **_word(0x8000_001F, None, "eax", "sme sev - sev_es sev_snp"),
    **_word(
        0x8000_0021,
        None,
        "eax",
        "no_nested_data_bp wrmsr_xx_base_ns lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr - "
        "- - - - - - - - - - - - - - - - sbpb ibpb_brtype srso_no srso_user_kernel_no",
    ),
}

ALIASES = {
    "sse3": "pni",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "lzcnt": "abm",
    "tsc_deadline": "tsc_deadline_timer",
    "nrips": "nrip_save",
    "sha": "sha_ni",
    "invariant_tsc": "invtsc",
    "constant_tsc": "invtsc",
}

NEEDS: dict[str, str] = {
    **dict.fromkeys(("avx", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "pku"), "xsave"),
    **dict.fromkeys(("avx2", "fma", "f16c", "vaes", "vpclmulqdq", "avx_vnni", "avx_ifma", "xop", "fma4"), "avx"),
    **dict.fromkeys(
        [name for name in FEATURES if name.startswith("avx512") and name != "avx512f"],
        "avx512f",
    ),
    "avx512f": "avx2",
    **{name: "svm" for name, feature in FEATURES.items() if feature.function == 0x8000_000A},
    "sse4_2": "sse4_1",
    "sse4_1": "ssse3",
    "ssse3": "pni",
}
"""A feature and the one without which it cannot be: masking the second masks the first."""


def canonical(name: str) -> str | None:
    """The table's name of a feature, whatever its case and dashes; None where there is none."""
    plain = name.strip().lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    return plain if plain in FEATURES else None


def dependants(name: str) -> set[str]:
    """The feature and everything that cannot be without it."""
    found = {name}
    while True:
        more = {feature for feature, needed in NEEDS.items() if needed in found} - found
        if not more:
            return found
        found |= more
