/*
 * Memory-mapped and port I/O in every width and by many instructions, against the test device's latch and its
 * 64 KiB of MMIO. An emulator has to decode each of these instructions, so each is written out in assembly.
 */
#include "guest.h"
#include "testdev.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { PAGE = 4096 };

static volatile u8 *device(unsigned offset) { return (volatile u8 *)(TESTDEV_MMIO + offset); }

/* The device's memory, read byte by byte and put together as little-endian. */
static u64 bytes(unsigned offset, unsigned width)
{
    u64 v = 0;

    while (width--)
        v = v << 8 | device(offset)[width];
    return v;
}

static void clear(unsigned offset, unsigned length)
{
    while (length--)
        *device(offset++) = 0;
}

#define PATTERN 0x8182838485868788ull

/* mov to and from memory; neighbours must stay as they are */
#define MOV(type, suffix, constraint)                                                                           \
    static void mov_##type(unsigned offset)                                                                     \
    {                                                                                                           \
        type in = (type)PATTERN, out = 0;                                                                       \
        clear(offset - 8, 24);                                                                                  \
        __asm__ volatile("mov" suffix " %1, %0" : "=m"(*(volatile type *)device(offset)) : constraint(in));     \
        check(bytes(offset, sizeof in) == in);                                                                  \
        check(bytes(offset - 8, 8) == 0 && *device(offset + sizeof in) == 0);                                   \
        __asm__ volatile("mov" suffix " %1, %0" : "=" constraint(out) : "m"(*(volatile type *)device(offset))); \
        check(out == in);                                                                                       \
    }
MOV(u8, "b", "q")
MOV(u16, "w", "r")
MOV(u32, "l", "r")
MOV(u64, "q", "r")

static void test_mov(void)
{
    for (unsigned offset = 16; offset < 24; offset++) {
        mov_u8(offset);
        mov_u16(offset);
        mov_u32(offset);
        mov_u64(offset);
    }
    print("mmio: mov of 1, 2, 4 and 8 bytes, aligned and not\n");
}

static void test_page_crossing(void)
{
    for (unsigned offset = PAGE - 8; offset <= PAGE; offset++) {
        mov_u16(offset);
        mov_u32(offset);
        mov_u64(offset);
    }
    print("mmio: accesses over a page boundary\n");
}

static void test_immediate(void)
{
    volatile u8 *at = device(32);

    clear(32, 16);
    __asm__ volatile("movb $0x12, %0" : "=m"(*at));
    check(bytes(32, 8) == 0x12);
    __asm__ volatile("movw $0x3456, %0" : "=m"(*(volatile u16 *)at));
    check(bytes(32, 8) == 0x3456);
    __asm__ volatile("movl $0x789abcde, %0" : "=m"(*(volatile u32 *)at));
    check(bytes(32, 8) == 0x789abcde);
    __asm__ volatile("movq $-2, %0" : "=m"(*(volatile u64 *)at));
    check(bytes(32, 8) == 0xfffffffffffffffe);
    print("mmio: immediates, also sign-extended\n");
}

static void test_extension(void)
{
    volatile u8 *at = device(48);
    u64 v;

    *(volatile u64 *)at = PATTERN;
    v = ~0ull;
    __asm__ volatile("movzbl %1, %k0" : "+r"(v) : "m"(*at));
    check(v == 0x88);
    v = ~0ull;
    __asm__ volatile("movzwl %1, %k0" : "+r"(v) : "m"(*(volatile u16 *)at));
    check(v == 0x8788);
    v = 0;
    __asm__ volatile("movsbq %1, %0" : "+r"(v) : "m"(*at));
    check(v == 0xffffffffffffff88);
    v = 0;
    __asm__ volatile("movswl %1, %k0" : "+r"(v) : "m"(*(volatile u16 *)at));
    check(v == 0xffff8788);
    v = 0;
    __asm__ volatile("movslq %1, %0" : "+r"(v) : "m"(*(volatile u32 *)at));
    check(v == 0xffffffff85868788);
    v = ~0ull; /* a 32-bit result clears the upper half, a 16-bit one leaves it */
    __asm__ volatile("movl %1, %k0" : "+r"(v) : "m"(*(volatile u32 *)at));
    check(v == 0x85868788);
    v = ~0ull;
    __asm__ volatile("movw %1, %w0" : "+r"(v) : "m"(*(volatile u16 *)at));
    check(v == 0xffffffffffff8788);
    print("mmio: zero and sign extension\n");
}

static void test_arithmetic(void)
{
    volatile u32 *at = (volatile u32 *)device(64);
    u8 flag;

    *at = 0x7fffffff;
    __asm__ volatile("addl %2, %0; seto %1" : "+m"(*at), "=q"(flag) : "r"(1));
    check(*at == 0x80000000 && flag);
    __asm__ volatile("subl %2, %0; sets %1" : "+m"(*at), "=q"(flag) : "r"(1));
    check(*at == 0x7fffffff && !flag);
    __asm__ volatile("andl $0x0ff0, %0" : "+m"(*at));
    check(*at == 0x0ff0);
    __asm__ volatile("orl $0x5000, %0" : "+m"(*at));
    check(*at == 0x5ff0);
    __asm__ volatile("xorl %1, %0" : "+m"(*at) : "r"(0xff));
    check(*at == 0x5f0f);
    __asm__ volatile("cmpl %2, %0; setb %1" : "+m"(*at), "=q"(flag) : "r"(0x5f10));
    check(flag);
    __asm__ volatile("testl %2, %0; setz %1" : "+m"(*at), "=q"(flag) : "r"(0xa0f0));
    check(flag);
    __asm__ volatile("incl %0" : "+m"(*at));
    __asm__ volatile("decb %0" : "+m"(*(volatile u8 *)at));
    __asm__ volatile("notl %0" : "+m"(*at));
    check(*at == ~0x5f0fu);
    __asm__ volatile("negl %0" : "+m"(*at));
    check(*at == 0x5f10);
    __asm__ volatile("shll $4, %0" : "+m"(*at));
    check(*at == 0x5f100);
    print("mmio: arithmetic in place, with its flags\n");
}

static void test_atomic(void)
{
    volatile u32 *at = (volatile u32 *)device(80);
    u32 v = 5, expected;
    u8 flag;

    *at = 3;
    __asm__ volatile("xchgl %0, %1" : "+m"(*at), "+r"(v));
    check(v == 3 && *at == 5);
    __asm__ volatile("lock xaddl %1, %0" : "+m"(*at), "+r"(v));
    check(v == 5 && *at == 8);
    expected = 7;
    __asm__ volatile("lock cmpxchgl %3, %0; setz %1" : "+m"(*at), "=q"(flag), "+a"(expected) : "r"(9));
    check(!flag && expected == 8 && *at == 8);
    __asm__ volatile("lock cmpxchgl %3, %0; setz %1" : "+m"(*at), "=q"(flag), "+a"(expected) : "r"(9));
    check(flag && *at == 9);
    __asm__ volatile("lock btsl $4, %0; setc %1" : "+m"(*at), "=q"(flag));
    check(!flag && *at == 25);
    print("mmio: xchg, xadd, cmpxchg, bts\n");
}

/* String instructions: memory to device, device to memory, and within the device. */
static void test_strings(void)
{
    static u8 source[64], target[64];
    const void *si;
    void *di;
    u64 n, v;

    for (unsigned i = 0; i < sizeof source; i++)
        source[i] = 3 * i + 1;
#define COPY(instruction, to, from, count)                                                                      \
    si = (const void *)(from), di = (void *)(to), n = (count);                                                  \
    __asm__ volatile("rep " instruction : "+S"(si), "+D"(di), "+c"(n) : : "memory");                            \
    check(n == 0 && (uintptr_t)si == (uintptr_t)(from) + 32 && (uintptr_t)di == (uintptr_t)(to) + 32)
    COPY("movsb", device(128), source, 32);
    COPY("movsw", device(160), device(128), 16);
    COPY("movsl", device(PAGE - 16), device(160), 8);
    COPY("movsq", target, device(PAGE - 16), 4);
    for (unsigned i = 0; i < 32; i++)
        check(target[i] == source[i]);

    di = (void *)device(256), n = 3;
    __asm__ volatile("rep stosl" : "+D"(di), "+c"(n) : "a"(0xc0ffee) : "memory");
    check(bytes(256, 8) == 0x00c0ffee00c0ffee && bytes(264, 4) == 0xc0ffee);
    di = (void *)(device(256) + 11), n = 8;
    __asm__ volatile("std; rep stosb; cld" : "+D"(di), "+c"(n) : "a"(0x11) : "memory");
    check(bytes(256, 8) == 0x1111111100c0ffee && bytes(264, 4) == 0x11111111);
    si = (const void *)device(256), v = 0;
    __asm__ volatile("lodsl" : "+S"(si), "+a"(v) : : "memory");
    check(v == 0xc0ffee);
    di = (void *)device(128), n = 32;
    __asm__ volatile("repne scasb" : "+D"(di), "+c"(n) : "a"(3 * 9 + 1) : "memory", "cc");
    check(n == 32 - 10);
    si = source, di = (void *)device(128), n = 64;
    *device(128 + 20) = 0;
    __asm__ volatile("repe cmpsb" : "+S"(si), "+D"(di), "+c"(n) : : "memory", "cc");
    check(n == 64 - 21);
    print("mmio: movs, stos, lods, scas, cmps\n");
}

static void test_stack(void)
{
    volatile u64 *at = (volatile u64 *)device(96);
    u64 v;

    at[0] = PATTERN;
    at[1] = 0;
    __asm__ volatile("pushq %1; popq %0" : "=r"(v) : "m"(at[0]));
    check(v == PATTERN);
    __asm__ volatile("pushq %1; popq %0" : "=m"(at[1]) : "r"(~PATTERN));
    check(at[1] == ~PATTERN);
    print("mmio: push and pop\n");
}

static void test_ports(void)
{
    u8 in[8] = {0}, out[8] = {9, 8, 7, 6, 5, 4, 3, 2};
    const void *si;
    void *di;
    u64 n;

    outl(TESTDEV_LATCH, 0x44332211);
    for (unsigned i = 0; i < 4; i++)
        check(inb(TESTDEV_LATCH + i) == 0x11 * (i + 1));
    check(inw(TESTDEV_LATCH) == 0x2211 && inw(TESTDEV_LATCH + 2) == 0x4433);
    outb(TESTDEV_LATCH + 1, 0xee);
    outw(TESTDEV_LATCH + 2, 0xbeef);
    check(inl(TESTDEV_LATCH) == 0xbeefee11);
    print("port: 1, 2 and 4 bytes\n");

    si = out, n = 5;
    __asm__ volatile("rep outsb" : "+S"(si), "+c"(n) : "d"(TESTDEV_LATCH) : "memory");
    check(n == 0 && si == out + 5 && inl(TESTDEV_LATCH) == 0xbeefee05);
    si = out, n = 2;
    __asm__ volatile("rep outsl" : "+S"(si), "+c"(n) : "d"(TESTDEV_LATCH) : "memory");
    check(inl(TESTDEV_LATCH) == 0x02030405);
    di = in, n = 3;
    __asm__ volatile("rep insw" : "+D"(di), "+c"(n) : "d"(TESTDEV_LATCH) : "memory");
    check(n == 0 && di == in + 6 && in[0] == 5 && in[1] == 4 && in[4] == 5 && in[5] == 4 && in[6] == 0);
    print("port: ins and outs\n");
}

int main(void)
{
    if (!testdev_present())
        fail("there is no test device");
    test_mov();
    test_page_crossing();
    test_immediate();
    test_extension();
    test_arithmetic();
    test_atomic();
    test_strings();
    test_stack();
    test_ports();
    print("mmio: ok\n");
    return 0;
}
