"""Vector and x87 instructions to try on the simulated unit and on the real CPU, as assembler text.

The GNU assembler turns the text into bytes, so the encodings owe nothing to the tables of the simulator.
In a template `X`, `Y` are XMM registers, `M`, `N` MMX registers, `R` a 32-bit and `Q` a 64-bit general register,
`I` an immediate byte, and `@n` the memory operand of n bytes (`@16a` must be aligned, and is not always;
`@16A` is always: whether that matters differs between CPUs).
"""

import random
import re
import shutil
import subprocess
from pathlib import Path

_ARITH = ["add", "mul", "sub", "div", "min", "max"]
_INTEGER_MMX = (
    "packsswb packssdw packuswb paddb paddw paddd paddsb paddsw paddusb paddusw pand pandn pcmpeqb pcmpeqw pcmpeqd "
    "pcmpgtb pcmpgtw pcmpgtd pmaddwd pmulhw pmullw por psllw pslld psllq psraw psrad psrlw psrld psrlq psubb psubw "
    "psubd psubsb psubsw psubusb psubusw punpckhbw punpckhwd punpckhdq pxor paddq psubq pmuludq pavgb pavgw pminub "
    "pmaxub pminsw pmaxsw pmulhuw psadbw"
).split()
_INTEGER_LOW = "punpcklbw punpcklwd punpckldq".split()
_SSSE3 = (
    "pshufb phaddw phaddd phaddsw pmaddubsw phsubw phsubd phsubsw psignb psignw psignd pmulhrsw pabsb pabsw pabsd"
).split()
_SSE41 = (
    "pmuldq pcmpeqq packusdw pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud pmulld phminposuw ptest"
).split()
_GROUPS: dict[str, list[str]] = {}


def _add(isa: str, *templates: str) -> None:
    _GROUPS.setdefault(isa, []).extend(templates)


def _both(isa: str, name: str, memory: str, tail: str = "", dest: str = "X", source: str = "Y") -> None:
    _add(isa, f"{name} {dest}, {source}{tail}", f"{name} {dest}, {memory}{tail}")


for _name in _ARITH:
    for _suffix, _memory, _isa in (
        ("ps", "@16a", "sse"),
        ("pd", "@16a", "sse2"),
        ("ss", "@4", "sse"),
        ("sd", "@8", "sse2"),
    ):
        _both(_isa, _name + _suffix, _memory)
for _suffix, _memory, _isa in (
    ("ps", "@16a", "sse"),
    ("pd", "@16a", "sse2"),
    ("ss", "@4", "sse"),
    ("sd", "@8", "sse2"),
):
    _both(_isa, "sqrt" + _suffix, _memory)
    for _code in range(8):
        _both(_isa, "cmp" + _suffix, _memory, f", {_code}")
for _name in ("rcp", "rsqrt"):
    _both("sse", _name + "ps", "@16a")
    _both("sse", _name + "ss", "@4")
for _name in ("and", "andn", "or", "xor", "unpckl", "unpckh"):
    _both("sse", _name + "ps", "@16a")
    _both("sse2", _name + "pd", "@16a")
_both("sse", "shufps", "@16a", ", I")
_both("sse2", "shufpd", "@16a", ", I")
for _name in ("comis", "ucomis"):
    _both("sse", _name + "s", "@4")
    _both("sse2", _name + "d", "@8")
for _name in ("cvtps2pd", "cvtdq2pd", "cvtsd2ss"):
    _both("sse2", _name, "@8")
_both("sse2", "cvtss2sd", "@4")
for _name in ("cvtpd2ps", "cvtdq2ps", "cvtps2dq", "cvttps2dq", "cvttpd2dq", "cvtpd2dq"):
    _both("sse2", _name, "@16a")
for _suffix, _memory, _isa in (("ss", "@4", "sse"), ("sd", "@8", "sse2")):
    for _register in "RQ":
        for _t in ("", "t"):
            _both(_isa, f"cvt{_t}{_suffix}2si", _memory, dest=_register)
        _both(_isa, f"cvtsi2{_suffix}", "dword ptr @4" if _register == "R" else "qword ptr @8", source=_register)
for _isa, _names in (("sse", ("cvtpi2ps",)), ("sse2", ("cvtpi2pd",))):
    for _name in _names:
        _both(_isa, _name, "@8", source="M")
for _isa, _name, _memory in (
    ("sse", "cvtps2pi", "@8"),
    ("sse", "cvttps2pi", "@8"),
    ("sse2", "cvtpd2pi", "@16a"),
    ("sse2", "cvttpd2pi", "@16a"),
):
    _both(_isa, _name, _memory, dest="M")
for _name, _memory, _isa in (
    ("movups", "@16", "sse"),
    ("movaps", "@16a", "sse"),
    ("movupd", "@16", "sse2"),
    ("movapd", "@16a", "sse2"),
    ("movdqa", "@16a", "sse2"),
    ("movdqu", "@16", "sse2"),
    ("movss", "@4", "sse"),
    ("movsd", "@8", "sse2"),
    ("movq", "@8", "sse2"),
):
    _both(_isa, _name, _memory)
    _add(_isa, f"{_name} {_memory}, X", f"{{store}} {_name} X, Y")
_add(
    "sse",
    "movlps X, @8",
    "movlps @8, X",
    "movhps X, @8",
    "movhps @8, X",
    "movhlps X, Y",
    "movlhps X, Y",
    "movntps @16a, X",
    "movmskps R, X",
)
_add(
    "sse2",
    "movlpd X, @8",
    "movlpd @8, X",
    "movhpd X, @8",
    "movhpd @8, X",
    "movntpd @16a, X",
    "movntdq @16a, X",
    "movmskpd R, X",
    "movd X, R",
    "movd R, X",
    "movq X, Q",
    "movq Q, X",
    "movd X, @4",
    "movd @4, X",
    "movnti @4, R",
    "movnti @8, Q",
    "movq2dq X, M",
    "movdq2q M, X",
    "maskmovdqu X, Y",
    "pmovmskb R, X",
    "pextrw R, X, I",
    "pinsrw X, R, I",
    "pinsrw X, @2, I",
    "lfence",
    "mfence",
)
for _name in ("pshufd", "pshufhw", "pshuflw"):
    _both("sse2", _name, "@16a", ", I")
for _name in _INTEGER_MMX:
    _both("sse2", _name, "@16a")
    _both("sse2", _name, "@8", dest="M", source="N")
for _name in _INTEGER_LOW:
    _both("sse2", _name, "@16a")
    _both("sse2", _name, "@4", dest="M", source="N")
for _name in ("punpcklqdq", "punpckhqdq"):
    _both("sse2", _name, "@16a")
for _name in ("psllw", "pslld", "psllq", "psraw", "psrad", "psrlw", "psrld", "psrlq"):
    _add("sse2", f"{_name} X, I", f"{_name} M, I")
_add("sse2", "pslldq X, I", "psrldq X, I")
_add(
    "mmx",
    "movd M, R",
    "movd R, M",
    "movq M, Q",
    "movq Q, M",
    "movd M, @4",
    "movd @4, M",
    "movq M, N",
    "movq M, @8",
    "movq @8, M",
    "{store} movq M, N",
    "emms",
)
_add(
    "sse",
    "movntq @8, M",
    "maskmovq M, N",
    "pmovmskb R, M",
    "pextrw R, M, I",
    "pinsrw M, R, I",
    "pinsrw M, @2, I",
    "pshufw M, N, I",
    "pshufw M, @8, I",
    "sfence",
    "prefetcht0 @8",
    "prefetchnta @8",
    "ldmxcsr @4",
    "stmxcsr @4",
)
for _name in ("addsubps", "addsubpd", "haddps", "haddpd", "hsubps", "hsubpd", "movshdup", "movsldup"):
    _both("sse3", _name, "@16a")
_both("sse3", "movddup", "@8")
_add("sse3", "lddqu X, @16")
for _name in _SSSE3:
    _both("ssse3", _name, "@16a")
    _both("ssse3", _name, "@8", dest="M", source="N")
_both("ssse3", "palignr", "@16a", ", I")
_both("ssse3", "palignr", "@8", ", I", dest="M", source="N")
for _name in _SSE41:
    _both("sse4_1", _name, "@16a")
for _name in ("pblendvb", "blendvps", "blendvpd"):
    _both("sse4_1", _name, "@16a", ", xmm0")
for _name, _memory in (("bw", "@8"), ("bd", "@4"), ("bq", "@2"), ("wd", "@8"), ("wq", "@4"), ("dq", "@8")):
    _both("sse4_1", "pmovsx" + _name, _memory)
    _both("sse4_1", "pmovzx" + _name, _memory)
for _name in ("blendps", "blendpd", "pblendw", "dpps", "dppd", "mpsadbw", "roundps", "roundpd"):
    _both("sse4_1", _name, "@16a", ", I")
_both("sse4_1", "roundss", "@4", ", I")
_both("sse4_1", "roundsd", "@8", ", I")
_both("sse4_1", "insertps", "@4", ", I")
_add(
    "sse4_1",
    "movntdqa X, @16a",
    "pextrb R, X, I",
    "pextrb @1, X, I",
    "pextrw @2, X, I",
    "pextrd R, X, I",
    "pextrd @4, X, I",
    "pextrq Q, X, I",
    "pextrq @8, X, I",
    "extractps R, X, I",
    "extractps @4, X, I",
    "pinsrb X, R, I",
    "pinsrb X, @1, I",
    "pinsrd X, R, I",
    "pinsrd X, @4, I",
    "pinsrq X, Q, I",
    "pinsrq X, @8, I",
)
_both("sse4_2", "pcmpgtq", "@16a")
for _name in ("pcmpestri", "pcmpestrm", "pcmpistri", "pcmpistrm"):
    _both("sse4_2", _name, "@16", ", I")
for _name in ("aesenc", "aesenclast", "aesdec", "aesdeclast", "aesimc"):
    _both("aes", _name, "@16a")
_both("aes", "aeskeygenassist", "@16a", ", I")
_both("pclmulqdq", "pclmulqdq", "@16a", ", I")
for _name in ("sha1nexte", "sha1msg1", "sha1msg2", "sha256msg1", "sha256msg2"):
    _both("sha_ni", _name, "@16A")
_both("sha_ni", "sha256rnds2", "@16A", ", xmm0")
_both("sha_ni", "sha1rnds4", "@16A", ", I")
for _name in ("gf2p8mulb",):
    _both("gfni", _name, "@16a")
for _name in ("gf2p8affineqb", "gf2p8affineinvqb"):
    _both("gfni", _name, "@16a", ", I")
_add("sse4a", "extrq X, Y", "insertq X, Y", "extrq X, I, I", "insertq X, Y, I, I", "movntss @4, X", "movntsd @8, X")
_add("fxsr", "fxsave64 @512a", "fxsave @512a")

VECTOR: dict[str, list[str]] = _GROUPS


def _avx_cases() -> dict[str, list[str]]:
    """`V`, `W`, `U`, `T` are YMM registers, `X`, `Y`, `Z`, `A` XMM registers with the same numbers."""
    out: dict[str, list[str]] = {}

    def add(isa: str, *templates: str) -> None:
        out.setdefault(isa, []).extend(templates)

    def three(isa: str, isa_wide: str, name: str, tail: str = "", memory: str = "@16") -> None:
        add(isa, f"v{name} X, Y, Z{tail}", f"v{name} X, Y, {memory}{tail}")
        if isa_wide:
            wide = memory if memory != "@16" else "@32"
            add(isa_wide, f"v{name} V, W, U{tail}", f"v{name} V, W, {wide}{tail}")

    def two(isa: str, isa_wide: str, name: str, tail: str = "", memory: str = "@16", wide_memory: str = "@32") -> None:
        add(isa, f"v{name} X, Y{tail}", f"v{name} X, {memory}{tail}")
        if isa_wide:
            add(isa_wide, f"v{name} V, W{tail}", f"v{name} V, {wide_memory}{tail}")

    for name in _ARITH:
        three("avx", "avx", name + "ps")
        three("avx", "avx", name + "pd")
        three("avx", "", name + "ss", memory="@4")
        three("avx", "", name + "sd", memory="@8")
    for name in ("sqrt", "rsqrt", "rcp"):
        two("avx", "avx", name + "ps")
        three("avx", "", name + "ss", memory="@4")
    two("avx", "avx", "sqrtpd")
    three("avx", "", "sqrtsd", memory="@8")
    for name in ("and", "andn", "or", "xor", "unpckl", "unpckh"):
        three("avx", "avx", name + "ps")
        three("avx", "avx", name + "pd")
    for name in ("addsubps", "addsubpd", "haddps", "haddpd", "hsubps", "hsubpd"):
        three("avx", "avx", name)
    for name in ("shufps", "shufpd", "blendps", "blendpd", "cmpps", "cmppd", "dpps"):
        three("avx", "avx", name, ", I" if not name.startswith("cmp") else ", 17")
    three("avx", "", "dppd", ", I")
    three("avx", "", "cmpss", ", 9", memory="@4")
    three("avx", "", "cmpsd", ", 30", memory="@8")
    for name in ("blendvps", "blendvpd"):
        add("avx", f"v{name} X, Y, Z, A", f"v{name} X, Y, @16, A", f"v{name} V, W, U, T", f"v{name} V, W, @32, T")
    add("avx", "vpblendvb X, Y, Z, A", "vpblendvb X, Y, @16, A")
    add("avx2", "vpblendvb V, W, U, T", "vpblendvb V, W, @32, T")
    for name in (
        _INTEGER_MMX
        + _INTEGER_LOW
        + ["punpcklqdq", "punpckhqdq", "pcmpgtq"]
        + [n for n in _SSSE3 + _SSE41 if n not in ("phminposuw", "ptest", "pabsb", "pabsw", "pabsd")]
    ):
        wide = "avx2"
        if re.match(r"ps(ll|ra|rl)[wdq]", name):
            add("avx2", f"v{name} V, W, Z", f"v{name} V, W, @16")
            wide = ""
        three("avx", wide, name)
    for name in ("pblendw", "palignr", "mpsadbw"):
        three("avx", "avx2", name, ", I")
    for name in ("pabsb", "pabsw", "pabsd"):
        two("avx", "avx2", name)
    for name in ("pshufd", "pshufhw", "pshuflw"):
        two("avx", "avx2", name, ", I")
    for name in ("psllw", "pslld", "psllq", "psraw", "psrad", "psrlw", "psrld", "psrlq", "pslldq", "psrldq"):
        add("avx", f"v{name} X, Y, I")
        add("avx2", f"v{name} V, W, I")
    for name in ("movups", "movaps", "movupd", "movapd", "movdqa", "movdqu"):
        a, b = ("@16a", "@32A") if name[-1] == "a" or "ap" in name else ("@16", "@32")
        two("avx", "avx", name, memory=a, wide_memory=b)
        add("avx", f"v{name} {a}, X", f"v{name} {b}, V", f"{{store}} v{name} X, Y", f"{{store}} v{name} V, W")
    two("avx", "avx", "movddup", memory="@8")
    for name in ("movshdup", "movsldup", "cvtdq2ps", "cvtps2dq", "cvttps2dq", "ptest", "testps", "testpd"):
        two("avx", "avx", name)
    for name in ("roundps", "roundpd", "permilps", "permilpd"):
        two("avx", "avx", name, ", I")
    three("avx", "avx", "permilps")
    three("avx", "avx", "permilpd")
    three("avx", "", "roundss", ", I", memory="@4")
    three("avx", "", "roundsd", ", I", memory="@8")
    three("avx", "", "insertps", ", I", memory="@4")
    add(
        "avx",
        "vcvtps2pd X, Y",
        "vcvtps2pd X, @8",
        "vcvtps2pd V, Y",
        "vcvtps2pd V, @16",
        "vcvtdq2pd X, @8",
        "vcvtdq2pd V, Y",
        "vcvtdq2pd V, @16",
        "vcvtpd2ps X, Y",
        "vcvtpd2ps X, W",
        "vcvtpd2ps X, ymmword ptr @32",
        "vcvttpd2dq X, W",
        "vcvtpd2dq X, W",
        "vcvtpd2dq X, xmmword ptr @16",
        "vcvtss2sd X, Y, Z",
        "vcvtss2sd X, Y, @4",
        "vcvtsd2ss X, Y, Z",
        "vcvtsd2ss X, Y, @8",
        "vcvtsi2ss X, Y, R",
        "vcvtsi2sd X, Y, Q",
        "vcvtsi2sd X, Y, dword ptr @4",
        "vcvtss2si R, X",
        "vcvttsd2si Q, X",
        "vcvttsd2si R, @8",
        "vcomiss X, Y",
        "vucomisd X, @8",
        "vmovss X, Y, Z",
        "vmovss X, @4",
        "vmovss @4, X",
        "vmovsd X, Y, Z",
        "vmovsd X, @8",
        "vmovsd @8, X",
        "vmovq X, Y",
        "vmovq X, @8",
        "vmovq @8, X",
        "vmovq X, Q",
        "vmovq Q, X",
        "vmovd X, R",
        "vmovd R, X",
        "vmovd X, @4",
        "vmovd @4, X",
        "vmovlps X, Y, @8",
        "vmovhps X, Y, @8",
        "vmovlps @8, X",
        "vmovhps @8, X",
        "vmovhlps X, Y, Z",
        "vmovlhps X, Y, Z",
        "vmovntps @16a, X",
        "vmovntdq @32A, V",
        "vmovntdqa X, @16a",
        "vlddqu X, @16",
        "vlddqu V, @32",
        "vmovmskps R, X",
        "vmovmskps R, V",
        "vmovmskpd R, V",
        "vpmovmskb R, X",
        "vpextrb R, X, I",
        "vpextrb @1, X, I",
        "vpextrw R, X, I",
        "vpextrd R, X, I",
        "vpextrq Q, X, I",
        "vpextrq @8, X, I",
        "vextractps @4, X, I",
        "vpinsrb X, Y, R, I",
        "vpinsrw X, Y, R, I",
        "vpinsrw X, Y, @2, I",
        "vpinsrd X, Y, R, I",
        "vpinsrq X, Y, Q, I",
        "vpinsrq X, Y, @8, I",
        "vphminposuw X, Y",
        "vmaskmovdqu X, Y",
        "vpcmpistri X, Y, I",
        "vpcmpestrm X, @16, I",
        "vzeroupper",
        "vzeroall",
        "vldmxcsr @4",
        "vstmxcsr @4",
        "vbroadcastss X, @4",
        "vbroadcastss V, @4",
        "vbroadcastsd V, @8",
        "vbroadcastf128 V, @16",
        "vperm2f128 V, W, U, I",
        "vperm2f128 V, W, @32, I",
        "vinsertf128 V, W, Z, I",
        "vinsertf128 V, W, @16, I",
        "vextractf128 X, W, I",
        "vextractf128 @16, V, I",
        "vmaskmovps X, Y, @16",
        "vmaskmovps V, W, @32",
        "vmaskmovps @32, W, V",
        "vmaskmovpd X, Y, @16",
        "vmaskmovpd @16, Y, X",
    )
    add(
        "avx2",
        "vpmovmskb R, V",
        "vbroadcastss V, Y",
        "vbroadcastss X, Y",
        "vbroadcastsd V, Y",
        "vbroadcasti128 V, @16",
        "vpbroadcastb X, Y",
        "vpbroadcastb V, @1",
        "vpbroadcastw V, Y",
        "vpbroadcastw X, @2",
        "vpbroadcastd V, Y",
        "vpbroadcastd V, @4",
        "vpbroadcastq V, Y",
        "vpbroadcastq X, @8",
        "vpermps V, W, U",
        "vpermd V, W, @32",
        "vpermq V, W, I",
        "vpermq V, @32, I",
        "vpermpd V, W, I",
        "vpblendd X, Y, Z, I",
        "vpblendd V, W, @32, I",
        "vperm2i128 V, W, U, I",
        "vinserti128 V, W, Z, I",
        "vextracti128 X, W, I",
        "vextracti128 @16, V, I",
        "vpsllvd X, Y, Z",
        "vpsllvd V, W, @32",
        "vpsllvq V, W, U",
        "vpsrlvd V, W, U",
        "vpsrlvq X, Y, @16",
        "vpsravd V, W, U",
        "vpsravd X, Y, Z",
        "vpmaskmovd V, W, @32",
        "vpmaskmovd @32, W, V",
        "vpmaskmovq X, Y, @16",
        "vpmaskmovq @16, Y, X",
        "vmovntdqa V, @32A",
    )
    for name, memory, wide_memory in (
        ("bw", "@8", "@16"),
        ("bd", "@4", "@8"),
        ("bq", "@2", "@4"),
        ("wd", "@8", "@16"),
        ("wq", "@4", "@8"),
        ("dq", "@8", "@16"),
    ):
        for sign in "sz":
            add("avx", f"vpmov{sign}x{name} X, Y", f"vpmov{sign}x{name} X, {memory}")
            add("avx2", f"vpmov{sign}x{name} V, Y", f"vpmov{sign}x{name} V, {wide_memory}")
    for name in ("vgatherdps", "vpgatherdd"):
        add("avx2", f"{name} xmm1, [rdi+xmm2*4], xmm3", f"{name} ymm8, [rdi+ymm9*2-4], ymm10")
    for name in ("vgatherqps", "vpgatherqd"):
        add("avx2", f"{name} xmm1, [rdi+xmm2*4], xmm3", f"{name} xmm8, [rdi+ymm9*1], xmm10")
    for name in ("vgatherdpd", "vpgatherdq"):
        add("avx2", f"{name} xmm1, [rdi+xmm2*8], xmm3", f"{name} ymm8, [rdi+xmm9*2], ymm10")
    for name in ("vgatherqpd", "vpgatherqq"):
        add("avx2", f"{name} xmm1, [rdi+xmm2*8], xmm3", f"{name} ymm8, [rdi+ymm9*2], ymm10")
    for order in ("132", "213", "231"):
        for name in ("fmadd", "fmsub", "fnmadd", "fnmsub"):
            three("fma", "fma", f"{name}{order}ps")
            three("fma", "fma", f"{name}{order}pd")
            three("fma", "", f"{name}{order}ss", memory="@4")
            three("fma", "", f"{name}{order}sd", memory="@8")
        for name in ("fmaddsub", "fmsubadd"):
            three("fma", "fma", f"{name}{order}ps")
            three("fma", "fma", f"{name}{order}pd")
    add(
        "f16c",
        "vcvtph2ps X, Y",
        "vcvtph2ps X, @8",
        "vcvtph2ps V, Y",
        "vcvtph2ps V, @16",
        "vcvtps2ph X, Y, 0",
        "vcvtps2ph @8, X, 1",
        "vcvtps2ph X, W, 4",
        "vcvtps2ph @16, V, 3",
    )
    for name in ("aesenc", "aesenclast", "aesdec", "aesdeclast"):
        three("avx", "vaes", name)
    two("avx", "", "aesimc")
    two("avx", "", "aeskeygenassist", ", I")
    three("avx", "vpclmulqdq", "pclmulqdq", ", I")
    three("gfni", "gfni", "gf2p8mulb")
    three("gfni", "gfni", "gf2p8affineqb", ", I")
    return out


AVX: dict[str, list[str]] = _avx_cases()

X87: list[str] = []
for _name in ("fadd", "fmul", "fsub", "fsubr", "fdiv", "fdivr"):
    X87 += [
        f"{_name} dword ptr @4",
        f"{_name} qword ptr @8",
        f"fi{_name[1:]} word ptr @2",
        f"fi{_name[1:]} dword ptr @4",
        f"{_name} st, S",
        f"{_name} S, st",
        f"{_name}p S, st",
    ]
for _name in ("fcom", "fcomp"):
    X87 += [
        f"{_name} dword ptr @4",
        f"{_name} qword ptr @8",
        f"fi{_name[1:]} word ptr @2",
        f"fi{_name[1:]} dword ptr @4",
        f"{_name} S",
    ]
X87 += [
    "fld dword ptr @4",
    "fld qword ptr @8",
    "fld tbyte ptr @10",
    "fild word ptr @2",
    "fild dword ptr @4",
    "fild qword ptr @8",
    "fbld @10",
    "fst dword ptr @4",
    "fst qword ptr @8",
    "fstp dword ptr @4",
    "fstp qword ptr @8",
    "fstp tbyte ptr @10",
    "fist word ptr @2",
    "fist dword ptr @4",
    "fistp word ptr @2",
    "fistp dword ptr @4",
    "fistp qword ptr @8",
    "fisttp word ptr @2",
    "fisttp dword ptr @4",
    "fisttp qword ptr @8",
    "fbstp @10",
    "fld S",
    "fst S",
    "fstp S",
    "fxch S",
    "ffree S",
    "fucom S",
    "fucomp S",
    "fcomi st, S",
    "fcomip st, S",
    "fucomi st, S",
    "fucomip st, S",
    "fcompp",
    "fucompp",
    "fnop",
    "fchs",
    "fabs",
    "ftst",
    "fxam",
    "fld1",
    "fldl2t",
    "fldl2e",
    "fldpi",
    "fldlg2",
    "fldln2",
    "fldz",
    "f2xm1",
    "fyl2x",
    "fptan",
    "fpatan",
    "fxtract",
    "fprem",
    "fprem1",
    "fdecstp",
    "fincstp",
    "fyl2xp1",
    "fsqrt",
    "fsincos",
    "frndint",
    "fscale",
    "fsin",
    "fcos",
    "fwait",
    "fnclex",
    "fninit",
    "fnstsw ax",
    "fnstsw word ptr @2",
    "fnstcw word ptr @2",
    "fldcw word ptr @2",
    "fnstenv @28",
    "fldenv @28",
    "fnsave @108",
    "frstor @108",
    "data16 fnstenv @28",
    "data16 fldenv @28",
    "data16 fnsave @108",
    "data16 frstor @108",
    "ffreep S",
]
X87 += [f"fcmov{_cc} st, S" for _cc in ("b", "e", "be", "u", "nb", "ne", "nbe", "nu")]
# second encodings of FCOM, FCOMP, FXCH, FSTP
X87 += [
    f".byte {_op:#x}, {_row + _i:#x}"
    for _op, _row in (
        (0xDC, 0xD0),
        (0xDC, 0xD8),
        (0xDD, 0xC8),
        (0xDE, 0xD0),
        (0xDF, 0xC8),
        (0xDF, 0xD0),
        (0xDF, 0xD8),
        (0xD9, 0xD8),
    )
    for _i in (0, 3)
]

DATA = 0x2002_0000
DATA_SIZE = 8192
_R32 = "eax ecx edx ebx ebp esi r8d r9d r12d r13d r15d".split()
_R64 = "rax rcx rdx rbx rbp rsi r8 r9 r12 r13 r15".split()


def fill(template: str, rng: random.Random) -> tuple[str, int | None]:
    """One instruction from a template, and the address of its memory operand; RDI is what the address is built on."""
    registers = [rng.randrange(16) for _ in range(4)]
    if rng.random() < 0.1:
        registers[1] = registers[0]
    match = re.search(r"@(\d+)([aA]?)", template)
    text = template
    address = None
    if match:
        size = int(match[1])
        alignment = (32 if size == 32 else 16) if match[2] else 1
        address = DATA + rng.randrange(0, 2048, 32)
        kind = rng.random()
        if kind < 0.1:
            address = DATA + 4096 - rng.randrange(0, size + alignment, alignment)
        elif kind < 0.13:
            address = DATA + DATA_SIZE - rng.randrange(0, size + alignment, alignment)
        elif (kind < 0.2 and match[2] != "A") or alignment == 1:
            address += rng.randrange(16)
        disp = rng.choice([0, 8, -16, 0x1234])
        text = text[: match.start()] + f"[rdi{disp:+d}]" + text[match.end() :]
        rdi = address - disp
    else:
        rdi = DATA + rng.randrange(512)
    replacements = {
        "X": lambda: f"xmm{registers[0]}",
        "Y": lambda: f"xmm{registers[1]}",
        "M": lambda: f"mm{registers[0] & 7}",
        "N": lambda: f"mm{registers[1] & 7}",
        "Z": lambda: f"xmm{registers[2]}",
        "A": lambda: f"xmm{registers[3]}",
        "V": lambda: f"ymm{registers[0]}",
        "W": lambda: f"ymm{registers[1]}",
        "U": lambda: f"ymm{registers[2]}",
        "T": lambda: f"ymm{registers[3]}",
        "R": lambda: rng.choice(_R32),
        "Q": lambda: rng.choice(_R64),
        "I": lambda: str(rng.choice([rng.randrange(256), rng.randrange(20)])),
        "S": lambda: f"st({rng.randrange(8)})",
    }
    text = re.sub(r"\b[XYZAVWUTMNRQIS]\b", lambda m: replacements[m[0]](), text)
    return text, rdi


def assemble(lines: list[str], where: Path, bits: int = 64) -> list[bytes]:
    """The machine code of each line; raises CalledProcessError with the assembler's complaint."""
    assembler, objcopy = shutil.which("as"), shutil.which("objcopy")
    assert assembler and objcopy, "binutils are needed"
    source = [".intel_syntax noprefix", '.section .index,"a"', ".text"]
    for i, line in enumerate(lines):
        source.append(f"1: {line}\n2:\n.pushsection .index\n.long 2b-1b\n.popsection" if i >= 0 else "")
    (where / "cases.s").write_text("\n".join(source) + "\n")
    subprocess.run(
        [assembler, f"--{bits}", "-o", where / "cases.o", where / "cases.s"], check=True, capture_output=True, text=True
    )
    for section, name in ((".text", "text.bin"), (".index", "index.bin")):
        subprocess.run([objcopy, "-O", "binary", "-j", section, where / "cases.o", where / name], check=True)
    text = (where / "text.bin").read_bytes()
    index = memoryview((where / "index.bin").read_bytes()).cast("I")
    out, at = [], 0
    for length in index:
        out.append(text[at : at + length])
        at += length
    return out
