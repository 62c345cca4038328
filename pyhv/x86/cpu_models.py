"""Named CPU models: the psABI's levels, and AMD's EPYC generations as far as a guest sees them."""

from __future__ import annotations

from pyhv.record import record


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_V1 = _names(
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm"
)
_V2 = _V1 | _names("pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm")
_V3 = _V2 | _names("xsave avx avx2 bmi1 bmi2 f16c fma abm movbe")
_V4 = _V3 | _names("avx512f avx512bw avx512cd avx512dq avx512vl")

_EPYC = _V3 | _names(
    "vme rdrand aes pclmulqdq rdtscp pdpe1gb fxsr_opt mmxext 3dnowprefetch misalignsse sse4a cr8_legacy fsgsbase smep "
    "rdseed adx smap clflushopt sha_ni xsaveopt xsavec xgetbv1"
)
_ROME = _EPYC | _names("clzero xsaveerptr wbnoinvd rdpid clwb umip ibpb amd_ssbd")
_MILAN = _ROME | _names("erms fsrm invpcid pcid pku")
_OPTIONAL = _names(
    "monitor osvw topoext svm npt nrip_save vmcb_clean flushbyasid decodeassists tsc_scale lbrv "
    "pausefilter pfthreshold v_vmsave_vmload vgif perfctr_core arat ibrs stibp virt_ssbd ssb_no vaes vpclmulqdq xsaves "
    "tsc_adjust invtsc"
)


@record(frozen=True)
class CpuModel:
    """`features` are demanded of the host, `optional` ones taken where it has them; all others are masked.

    `vendor` and `signature` ("" and None: the host's) are leaves 0 and 1.
    """

    features: frozenset[str]
    optional: frozenset[str] = frozenset()
    vendor: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0
    brand: str = ""

    @property
    def signature(self) -> int | None:
        """Leaf 1's EAX (APM vol. 3, E.3.2)."""
        if not self.family:
            return None
        extended = max(0, self.family - 15)
        base = self.family - extended
        return extended << 20 | self.model >> 4 << 16 | base << 8 | (self.model & 15) << 4 | self.stepping


MODELS: dict[str, CpuModel] = {
    "x86-64-v1": CpuModel(_V1),
    "x86-64-v2": CpuModel(_V2),
    "x86-64-v3": CpuModel(_V3),
    "x86-64-v4": CpuModel(_V4),
    "EPYC": CpuModel(_EPYC, _OPTIONAL, "AuthenticAMD", 23, 1, 2, "AMD EPYC Processor"),
    "EPYC-Rome": CpuModel(_ROME, _OPTIONAL, "AuthenticAMD", 23, 49, 0, "AMD EPYC-Rome Processor"),
    "EPYC-Milan": CpuModel(_MILAN, _OPTIONAL, "AuthenticAMD", 25, 1, 1, "AMD EPYC-Milan Processor"),
}
