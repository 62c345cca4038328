/*
 * The instructions that broke classic trap-and-emulate (Robin and Irvine, 2000): sensitive, that is, they show or
 * change the state of the machine, and yet not privileged, that is, in ring 3 they do not trap but quietly do
 * something else. A hypervisor on a processor without hardware support would have to catch them all.
 *
 * Each is run in ring 0 and in ring 3. What it did is printed, and then compared with the architecture (AMD64 APM
 * volume 3). Some that do trap stand beside them for contrast.
 *
 * Hosts without hardware support do not catch them all, indeed: a paravirtualised one runs ring 3 natively, and what an
 * instruction finds there, a table's address, a selector's number, is the host's. So of ring 3 the guest asks only what
 * holds there, too: whether an instruction faults, with which error code, and what it may not change or see. The checks
 * of descriptors (LAR, LSL, VERR, VERW) are left to ring 3 alone: hosts that emulate ring 0 lack them.
 */
#include "sensitive.h"
#include "gdt.h"
#include "guest.h"
#include "io.h"
#include "isr.h"
#include "pic.h"

enum {
    RFLAGS_ONE = 1 << 1,
    RFLAGS_IF = 1 << 9,
    RFLAGS_IOPL = 3 << 12,
    CR0_PE = 1 << 0,
    CR4_UMIP = 1 << 11,
    PAGE_USER = 1 << 2,
    RING0_VECTOR = 0x81,        /* an interrupt gate with DPL 0 */
};

void run_in_ring3(void (*function)(void), uint64_t rflags);
void leave_ring3(void) __attribute__((noreturn));
void far_target(void);
extern volatile unsigned far_target_cs;
extern char back_to_ring0[], interrupt_stack_top[];

/* Faults: a probe names the place to go on at, and finds here which fault brought it there. */

static volatile uintptr_t resume;
static volatile int fault_vector;
static volatile unsigned fault_error;

static void on_fault(struct frame *frame)
{
    if (frame->vector == VECTOR_UD && frame->ip == (uintptr_t)back_to_ring0)
        leave_ring3();
    if (!resume)
        fail("vector %lu, error code %lx, at %lx", frame->vector, frame->error, frame->ip);
    fault_vector = frame->vector;
    fault_error = frame->error;
    frame->ip = resume;
}

/* Runs an instruction that may fault; the result says whether it went through. RSP survives a fault half-way. */
#define TRY(instruction, ...)                                                                                   \
    ({                                                                                                          \
        fault_vector = -1;                                                                                      \
        __asm__ volatile("movq $1f, resume\n\t"                                                                 \
                         "movq %%rsp, %%rsi\n\t" instruction "\n"                                               \
                         "1: movq %%rsi, %%rsp\n\t"                                                             \
                         "movq $0, resume"                                                                      \
                         __VA_ARGS__);                                                                          \
        fault_vector < 0;                                                                                       \
    })

/* What a probe did, in words. Ring 3 cannot print, so a probe writes here, and main() prints. */

static char said[80];
static unsigned said_length;

static void say(const char *s)
{
    while (*s && said_length < sizeof said - 1)
        said[said_length++] = *s++;
    said[said_length] = 0;
}

static void say_number(unsigned v) /* of one digit */
{
    char digit[2] = {'0' + v % 10, 0};

    say(digit);
}

static void say_fault(void)
{
    char error[5] = "0000";

    for (int i = 0; i < 4; i++)
        error[3 - i] = "0123456789abcdef"[fault_error >> 4 * i & 15];
    say(fault_vector == VECTOR_GP ? "#GP(" : fault_vector == VECTOR_UD ? "#UD(" : "another fault (");
    say(error);
    say(")");
}

static void say_whether(int condition, const char *yes, const char *no) { say(condition ? yes : no); }

static unsigned ring(void)
{
    unsigned cs;

    __asm__("mov %%cs, %0" : "=r"(cs));
    return cs & 3;
}

static uint64_t rflags(void)
{
    uint64_t v;

    __asm__ volatile("pushf; pop %0" : "=r"(v));
    return v;
}

/* Flags */

static void probe_pushf(void)
{
    uint64_t flags = rflags();

    say("IF ");
    say_number(!!(flags & RFLAGS_IF));
    say(" IOPL ");
    say_number((flags & RFLAGS_IOPL) >> 12);
}

static void popf_flips(uint64_t bits)
{
    uint64_t before = rflags(), after = 0;

    if (TRY("push %1; popf; pushf; pop %0; push %2; popf",
            : "+&r"(after) : "r"(before ^ bits), "r"(before) : "rsi", "memory", "cc"))
        say_whether((before ^ after) & bits, "changed", "kept");
    else
        say_fault();
}

static void probe_popf_if(void) { popf_flips(RFLAGS_IF); }
static void probe_popf_iopl(void) { popf_flips(RFLAGS_IOPL); }

/* IRET to the same ring, with another IF in the flags that it takes from the stack. */
static void probe_iret_if(void)
{
    uint64_t before = rflags(), after = 0, here = 0;

    if (TRY("mov %%rsp, %1; mov %%ss, %k0; push %0; push %1; push %2; mov %%cs, %k0; push %0; push $2f; iretq\n"
            "2: pushf; pop %0; push %3; popf",
            : "+&r"(after), "+&r"(here) : "r"(before ^ RFLAGS_IF), "r"(before) : "rsi", "memory", "cc"))
        say_whether((before ^ after) & RFLAGS_IF, "changed", "kept");
    else
        say_fault();
}

static void probe_cli(void)
{
    uint64_t before = rflags(), after = 0;

    if (TRY("sti; cli; pushf; pop %0; push %1; popf", : "+&r"(after) : "r"(before) : "rsi", "memory", "cc"))
        say_whether(after & RFLAGS_IF, "ignored", "done");
    else
        say_fault();
}

/* System registers that anyone may read, unless CR4.UMIP is set */

struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint64_t base;
};

extern char gdt_limit[]; /* an absolute symbol: its address is the value */

static uint64_t cr0;

/* In ring 0 the table must be the guest's own; for ring 3 all that is certain is that the instruction goes through. */
static void say_table(const struct pointer *p, const void *base, uint16_t limit)
{
    if (ring() == 3)
        say("no fault");
    else
        say_whether(p->base == (uintptr_t)base && p->limit == limit, "own table", "another table");
}

static void probe_sgdt(void)
{
    struct pointer p = {0, 0};

    if (TRY("sgdt %0", : "+m"(p) : : "rsi", "memory"))
        say_table(&p, gdt, (uintptr_t)gdt_limit);
    else
        say_fault();
}

static void probe_sidt(void)
{
    struct pointer p = {0, 0};

    if (TRY("sidt %0", : "+m"(p) : : "rsi", "memory"))
        say_table(&p, isr_table(), 256 * 16 - 1);
    else
        say_fault();
}

static void say_selector(unsigned selector, unsigned own)
{
    if (ring() == 3)
        say("no fault");
    else
        say_whether(selector == own, "own selector", "another selector");
}

static void probe_sldt(void)
{
    unsigned v = 0xffff;

    if (TRY("sldt %0", : "+r"(v) : : "rsi", "memory"))
        say_selector(v, 0);
    else
        say_fault();
}

static void probe_str(void)
{
    unsigned v = 0;

    if (TRY("str %0", : "+r"(v) : : "rsi", "memory"))
        say_selector(v, TASK);
    else
        say_fault();
}

static void probe_smsw(void)
{
    uint16_t v = 0;

    if (!TRY("smsw %0", : "+m"(v) : : "rsi", "memory"))
        say_fault();
    else if (ring() == 3)
        say_whether(v & CR0_PE, "PE 1", "PE 0");
    else
        say_whether(v == (uint16_t)cr0, "low CR0", "not CR0");
}

static void probe_cs(void)
{
    say("RPL ");
    say_number(ring());
}

/* Descriptor checks: the answer depends on the ring that asks */

static void lar(unsigned selector)
{
    uint32_t v = 0;
    uint8_t zf = 0;

    if (!TRY("lar %2, %0; setz %1", : "+&r"(v), "+&q"(zf) : "r"(selector) : "rsi", "memory", "cc"))
        say_fault();
    else if (zf) {
        say("DPL ");
        say_number(v >> 13 & 3);
    } else
        say("refused");
}

static void lsl(unsigned selector)
{
    uint32_t v = 0;
    uint8_t zf = 0;

    if (!TRY("lsl %2, %0; setz %1", : "+&r"(v), "+&q"(zf) : "r"(selector) : "rsi", "memory", "cc"))
        say_fault();
    else if (zf)
        say_whether(v == 0xffffffff, "4 GiB", "another limit");
    else
        say("refused");
}

static void verr(unsigned selector)
{
    uint8_t zf = 0;

    if (TRY("verr %w1; setz %0", : "+&q"(zf) : "r"(selector) : "rsi", "memory", "cc"))
        say_whether(zf, "readable", "not readable");
    else
        say_fault();
}

static void verw(unsigned selector)
{
    uint8_t zf = 0;

    if (TRY("verw %w1; setz %0", : "+&q"(zf) : "r"(selector) : "rsi", "memory", "cc"))
        say_whether(zf, "writable", "not writable");
    else
        say_fault();
}

static unsigned current_ss(void)
{
    unsigned ss;

    __asm__("mov %%ss, %0" : "=r"(ss));
    return ss;
}

static void probe_lar_kernel(void) { lar(KERNEL_CS); }
static void probe_lar_own(void) { lar(current_ss()); }
static void probe_lar_null(void) { lar(0); }
static void probe_lar_none(void) { lar(NO_SELECTOR); }
static void probe_lsl_kernel(void) { lsl(KERNEL_DS); }
static void probe_lsl_own(void) { lsl(current_ss()); }
static void probe_verr_kernel(void) { verr(KERNEL_DS); }
static void probe_verr_own(void) { verr(current_ss()); }
static void probe_verr_null(void) { verr(0); }
static void probe_verw_kernel(void) { verw(KERNEL_DS); }
static void probe_verw_own(void) { verw(current_ss()); }

/* Control transfers */

static void far_call(unsigned selector)
{
    struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } target = {(uintptr_t)far_target, selector};

    far_target_cs = 0;
    if (TRY("lcall *%0", : : "m"(target) : "rax", "rsi", "memory", "cc")) {
        say("ran in ring ");
        say_number(far_target_cs & 3);
    } else
        say_fault();
}

static void probe_call_own(void)
{
    unsigned cs;

    __asm__("mov %%cs, %0" : "=r"(cs));
    far_call(cs);
}

static void probe_call_kernel(void) { far_call(KERNEL_CS); }
static void probe_call_null(void) { far_call(0); }
static void probe_call_data(void) { far_call(KERNEL_DS); }
static void probe_call_none(void) { far_call(NO_SELECTOR); }

static void probe_lret_kernel(void)
{
    if (TRY("push %0; push $2f; lretq; 2:", : : "i"(KERNEL_CS) : "rsi", "memory"))
        say("returned");
    else
        say_fault();
}

static void probe_int(void)
{
    if (TRY("int %0", : : "i"(RING0_VECTOR) : "rsi", "memory"))
        say("done");
    else
        say("refused");
}

static void probe_load_ds(void)
{
    if (TRY("mov %%ds, %%eax; mov %0, %%ds; mov %%eax, %%ds", : : "r"(KERNEL_DS) : "rax", "rsi", "memory"))
        say("done");
    else
        say_fault();
}

/* Privileged, for contrast */

static void probe_mov_cr0(void)
{
    uint64_t v = 0;

    if (TRY("mov %%cr0, %0", : "+r"(v) : : "rsi", "memory"))
        say_whether(v == cr0, "done", "another value");
    else
        say_fault();
}

static void probe_lmsw(void)
{
    if (TRY("lmsw %w0", : : "r"((unsigned)cr0) : "rsi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_lgdt(void)
{
    struct pointer p = {(uintptr_t)gdt_limit, (uintptr_t)gdt};

    if (TRY("lgdt %0", : : "m"(p) : "rsi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_rdmsr(void)
{
    if (TRY("rdmsr", : : "c"(0x1b) : "rax", "rdx", "rsi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_in(void)
{
    if (TRY("in $0x80, %%al", : : : "rax", "rsi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_hlt(void)
{
    if (TRY("hlt", : : : "rsi", "memory"))
        say("slept");
    else
        say_fault();
}

static const struct probe {
    const char *name;
    void (*run)(void);
    const char *ring0, *ring3;  /* what the architecture says; ring 0 is left out without it */
} probes[] = {
    {"pushf", probe_pushf, "IF 0 IOPL 0", "IF 1 IOPL 0"},
    {"popf, IF", probe_popf_if, "changed", "kept"},
    {"popf, IOPL", probe_popf_iopl, "changed", "kept"},
    {"iret, IF", probe_iret_if, "changed", "kept"},

    {"sgdt", probe_sgdt, "own table", "no fault"},
    {"sidt", probe_sidt, "own table", "no fault"},
    {"sldt", probe_sldt, "own selector", "no fault"},
    {"str", probe_str, "own selector", "no fault"},
    {"smsw", probe_smsw, "low CR0", "PE 1"},
    {"mov from cs", probe_cs, "RPL 0", "RPL 3"},

    {"lar, ring 0 code", probe_lar_kernel, 0, "refused"},
    {"lar, own stack", probe_lar_own, 0, "DPL 3"},
    {"lar, null", probe_lar_null, 0, "refused"},
    {"lar, beyond the table", probe_lar_none, 0, "refused"},
    {"lsl, ring 0 data", probe_lsl_kernel, 0, "refused"},
    {"lsl, own stack", probe_lsl_own, 0, "4 GiB"},
    {"verr, ring 0 data", probe_verr_kernel, 0, "not readable"},
    {"verr, own stack", probe_verr_own, 0, "readable"},
    {"verr, null", probe_verr_null, 0, "not readable"},
    {"verw, ring 0 data", probe_verw_kernel, 0, "not writable"},
    {"verw, own stack", probe_verw_own, 0, "writable"},

    {"far call, own segment", probe_call_own, "ran in ring 0", "ran in ring 3"},
    {"far call, ring 0 code", probe_call_kernel, "ran in ring 0", "#GP(0008)"},
    {"far call, null", probe_call_null, "#GP(0000)", "#GP(0000)"},
    {"far call, data", probe_call_data, "#GP(0010)", "#GP(0010)"},
    {"far call, beyond the table", probe_call_none, "#GP(1000)", "#GP(1000)"},
    {"far return to ring 0", probe_lret_kernel, "returned", "#GP(0008)"},
    {"int, gate for ring 0", probe_int, 0, "refused"},
    {"mov to ds, ring 0 data", probe_load_ds, "done", "#GP(0010)"},

    {"sti, cli", probe_cli, "done", "#GP(0000)"},
    {"mov from cr0", probe_mov_cr0, "done", "#GP(0000)"},
    {"lmsw", probe_lmsw, "done", "#GP(0000)"},
    {"lgdt", probe_lgdt, "done", "#GP(0000)"},
    {"rdmsr", probe_rdmsr, "done", "#GP(0000)"},
    {"in", probe_in, "done", "#GP(0000)"},
    {"hlt", probe_hlt, 0, "#GP(0000)"},
};

static unsigned wrong;

static void report(const char *ring, const char *expected)
{
    unsigned i = 0;

    print("%s %s", ring, said);
    while (said[i] && said[i] == expected[i])
        i++;
    if (said[i] != expected[i]) {
        print(" (FAIL, should be: %s)", expected);
        wrong++;
    }
    said_length = 0;
    said[0] = 0;
}

/* Opens the first 2 MiB, where the guest is, to ring 3. */
static void open_memory(void)
{
    extern volatile uint64_t pml4[];
    volatile uint64_t *table = pml4;

    for (int level = 4; level > 1; level--) {
        table[0] |= PAGE_USER;
        table = (volatile uint64_t *)(table[0] & ~0xfffull);
    }
    __asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
}

static void set_up(void)
{
    uint64_t cr4;

    __asm__("mov %%cr0, %0" : "=r"(cr0));
    __asm__("mov %%cr4, %0" : "=r"(cr4));
    check(!(cr4 & CR4_UMIP));
    open_memory();
    __asm__ volatile("lldt %w0" : : "r"(0));
    tss_init(interrupt_stack_top);
    isr_init();
    for (unsigned vector = 0; vector < 32; vector++)
        isr_set(vector, on_fault);
    pic_init(); /* all masked: interrupts stay away while IF is played with */
}

int main(void)
{
    set_up();
    for (const struct probe *p = probes; p < probes + sizeof probes / sizeof *probes; p++) {
        print("%s:", p->name);
        if (p->ring0) {
            p->run();
            report(" ring 0", p->ring0);
        }
        run_in_ring3(p->run, RFLAGS_ONE | RFLAGS_IF);
        report(p->ring0 ? "; ring 3" : " ring 3", p->ring3);
        print("\n");
    }
    if (wrong)
        fail("%u results are not those of the architecture", wrong);
    print("sensitive: ok\n");
    return 0;
}
