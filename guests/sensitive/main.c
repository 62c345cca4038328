/*
 * The instructions that broke classic trap-and-emulate (Robin and Irvine, 2000): sensitive, that is, they show or
 * change the state of the machine, and yet not privileged, that is, in ring 3 they do not trap but quietly do
 * something else. A hypervisor on a processor without hardware support would have to catch them all.
 *
 * Each is run in ring 0, in ring 3, and in ring 3 with I/O privilege (IOPL 3). What it did is printed, and then
 * compared with the architecture (AMD64 APM volume 3). Some that do trap stand beside them for contrast.
 */
#include "sensitive.h"
#include "gdt.h"
#include "guest.h"
#include "io.h"
#include "isr.h"
#include "pic.h"

enum { EFLAGS_ONE = 1 << 1, EFLAGS_ZF = 1 << 6, EFLAGS_IF = 1 << 9, EFLAGS_IOPL = 3 << 12, CR4_UMIP = 1 << 11 };

void run_in_ring3(void (*function)(void), uint32_t eflags);
void far_target(void);
void on_return(void);
extern volatile unsigned far_target_cs;
extern char interrupt_stack_top[];

/* Faults: a probe names the place to go on at, and finds here which fault brought it there. */

static volatile uintptr_t resume;
static volatile int fault_vector;
static volatile unsigned fault_error;

static void on_fault(struct frame *frame)
{
    if (!resume)
        fail("vector %lu, error code %lx, at %lx", frame->vector, frame->error, frame->ip);
    fault_vector = frame->vector;
    fault_error = frame->error;
    frame->ip = resume;
}

/* Runs an instruction that may fault; the result says whether it went through. ESP survives a fault half-way. */
#define TRY(instruction, ...)                                                                                   \
    ({                                                                                                          \
        fault_vector = -1;                                                                                      \
        __asm__ volatile("movl $1f, resume\n\t"                                                                 \
                         "movl %%esp, %%esi\n\t" instruction "\n"                                               \
                         "1: movl %%esi, %%esp\n\t"                                                             \
                         "movl $0, resume"                                                                      \
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

static void say_hex(uint32_t v)
{
    char digits[9], *p = digits + 8;

    *p = 0;
    do {
        *--p = "0123456789abcdef"[v & 15];
    } while (v >>= 4);
    say(p);
}

static void say_fault(void)
{
    say(fault_vector == VECTOR_GP ? "#GP(" : fault_vector == VECTOR_UD ? "#UD(" : "another fault (");
    say_hex(fault_error);
    say(")");
}

static void say_whether(int condition, const char *yes, const char *no) { say(condition ? yes : no); }

static uint32_t eflags(void)
{
    uint32_t v;
    __asm__ volatile("pushf; pop %0" : "=r"(v));
    return v;
}

/* Flags */

static void probe_pushf(void)
{
    uint32_t flags = eflags();

    say("IF ");
    say_hex(!!(flags & EFLAGS_IF));
    say(" IOPL ");
    say_hex((flags & EFLAGS_IOPL) >> 12);
}

static void popf_flips(uint32_t bits)
{
    uint32_t before = eflags(), after = 0;

    if (TRY("push %1; popf; pushf; pop %0; push %2; popf",
            : "+&r"(after) : "r"(before ^ bits), "r"(before) : "esi", "memory", "cc"))
        say_whether((before ^ after) & bits, "changed", "kept");
    else
        say_fault();
}

static void probe_popf_if(void) { popf_flips(EFLAGS_IF); }
static void probe_popf_iopl(void) { popf_flips(EFLAGS_IOPL); }

static void probe_iret_if(void)
{
    uint32_t before = eflags(), after = 0;

    if (TRY("push %1; push %%cs; push $2f; iret; 2: pushf; pop %0; push %2; popf",
            : "+&r"(after) : "r"(before ^ EFLAGS_IF), "r"(before) : "esi", "memory", "cc"))
        say_whether((before ^ after) & EFLAGS_IF, "changed", "kept");
    else
        say_fault();
}

static void probe_cli(void)
{
    uint32_t before = eflags(), after = 0;

    if (TRY("sti; cli; pushf; pop %0; push %1; popf", : "+&r"(after) : "r"(before) : "esi", "memory", "cc"))
        say_whether(after & EFLAGS_IF, "ignored", "done");
    else
        say_fault();
}

/* System registers that anyone may read, unless CR4.UMIP is set */

struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint32_t base;
};

extern char gdt_limit[]; /* an absolute symbol: its address is the value */

static uint32_t cr0;

static void probe_sgdt(void)
{
    struct pointer p = {0, 0};

    if (TRY("sgdt %0", : "+m"(p) : : "esi", "memory"))
        say_whether(p.base == (uintptr_t)gdt && p.limit == (uintptr_t)gdt_limit, "own table", "another table");
    else
        say_fault();
}

static void probe_sidt(void)
{
    struct pointer p = {0, 0};

    if (TRY("sidt %0", : "+m"(p) : : "esi", "memory"))
        say_whether(p.base == (uintptr_t)isr_table() && p.limit == 256 * 8 - 1, "own table", "another table");
    else
        say_fault();
}

static void probe_sldt(void)
{
    uint32_t v = 0;

    if (TRY("sldt %0", : "+r"(v) : : "esi", "memory"))
        say_hex(v);
    else
        say_fault();
}

static void probe_str(void)
{
    uint32_t v = 0;

    if (TRY("str %0", : "+r"(v) : : "esi", "memory"))
        say_hex(v);
    else
        say_fault();
}

static void probe_smsw(void)
{
    uint16_t v = 0;

    if (TRY("smsw %0", : "+m"(v) : : "esi", "memory"))
        say_whether(v == (uint16_t)cr0, "low CR0", "not CR0");
    else
        say_fault();
}

static void probe_cs(void)
{
    uint32_t v;

    __asm__("mov %%cs, %0" : "=r"(v));
    say_hex(v);
}

/* Descriptor checks: the answer depends on the ring */

/*
 * Bits 8 to 15 are the type and DPL. Of the rest only bits 20 to 23 of code and data segments mean something: bits
 * 16 to 19 hold a part of the limit or nothing, as the processor pleases, and in a gate all of it is offset.
 */
static uint32_t lar_defined(uint32_t v)
{
    int code_or_data = v & 1 << 12;

    return v & (code_or_data ? 0x00f0ff00 : 0xff00);
}

static void lar(unsigned selector)
{
    uint32_t v = 0;
    uint8_t zf = 0;

    if (!TRY("lar %2, %0; setz %1", : "+&r"(v), "+&q"(zf) : "r"(selector) : "esi", "memory", "cc"))
        say_fault();
    else if (zf)
        say_hex(lar_defined(v));
    else
        say("refused");
}

static void lsl(unsigned selector)
{
    uint32_t v = 0;
    uint8_t zf = 0;

    if (!TRY("lsl %2, %0; setz %1", : "+&r"(v), "+&q"(zf) : "r"(selector) : "esi", "memory", "cc"))
        say_fault();
    else if (zf)
        say_hex(v);
    else
        say("refused");
}

static void verr(unsigned selector)
{
    uint8_t zf = 0;

    if (TRY("verr %w1; setz %0", : "+&q"(zf) : "r"(selector) : "esi", "memory", "cc"))
        say_whether(zf, "readable", "not readable");
    else
        say_fault();
}

static void verw(unsigned selector)
{
    uint8_t zf = 0;

    if (TRY("verw %w1; setz %0", : "+&q"(zf) : "r"(selector) : "esi", "memory", "cc"))
        say_whether(zf, "writable", "not writable");
    else
        say_fault();
}

static void probe_lar_kernel(void) { lar(KERNEL_CS); }
static void probe_lar_user(void) { lar(USER_DS); }
static void probe_lar_conforming(void) { lar(CONFORMING_CS); }
static void probe_lar_task(void) { lar(TASK_SELECTOR); }
static void probe_lar_gate(void) { lar(GATE_FOR_ALL); }
static void probe_lar_null(void) { lar(0); }
static void probe_lar_none(void) { lar(NO_SELECTOR); }
static void probe_lsl_kernel(void) { lsl(KERNEL_DS); }
static void probe_lsl_user(void) { lsl(USER_DS); }
static void probe_lsl_task(void) { lsl(TASK_SELECTOR); }
static void probe_lsl_gate(void) { lsl(GATE_FOR_ALL); }
static void probe_verr_kernel(void) { verr(KERNEL_DS); }
static void probe_verr_user(void) { verr(USER_DS); }
static void probe_verr_null(void) { verr(0); }
static void probe_verw_kernel(void) { verw(KERNEL_DS); }
static void probe_verw_user(void) { verw(USER_DS); }
static void probe_verw_code(void) { verw(USER_CS); }

/* Control transfers */

#define FAR_CALL(selector, offset)                                                                              \
    do {                                                                                                        \
        far_target_cs = 0;                                                                                      \
        if (TRY("lcall %0, %1", : : "i"(selector), "i"(offset)                                                \
                : "eax", "ecx", "edx", "esi", "memory", "cc")) {                                                \
            say("ran in ");                                                                                     \
            say_hex(far_target_cs);                                                                             \
        } else                                                                                                  \
            say_fault();                                                                                        \
    } while (0)

static void probe_call_kernel(void) { FAR_CALL(KERNEL_CS, far_target); }
static void probe_call_user(void) { FAR_CALL(USER_CS, far_target); }
static void probe_call_conforming(void) { FAR_CALL(CONFORMING_CS, far_target); }
static void probe_call_gate(void) { FAR_CALL(GATE_FOR_ALL, 0); }
static void probe_call_gate0(void) { FAR_CALL(GATE_FOR_RING0, 0); }
static void probe_call_null(void) { FAR_CALL(0, far_target); }
static void probe_call_data(void) { FAR_CALL(USER_DS, far_target); }

static void probe_lret_kernel(void)
{
    if (TRY("push %0; push $2f; lret; 2:", : : "i"(KERNEL_CS) : "esi", "memory"))
        say("returned");
    else
        say_fault();
}

static void probe_int(void)
{
    if (TRY("int %0", : : "i"(RING0_VECTOR) : "esi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_load_ds(void)
{
    if (TRY("push %%ds; mov %w0, %%ds; pop %%ds", : : "r"(KERNEL_DS) : "esi", "memory"))
        say("done");
    else
        say_fault();
}

/* Privileged, for contrast */

static void probe_mov_cr0(void)
{
    uint32_t v = 0;

    if (TRY("mov %%cr0, %0", : "+r"(v) : : "esi", "memory"))
        say_whether(v == cr0, "done", "another value");
    else
        say_fault();
}

static void probe_lmsw(void)
{
    if (TRY("lmsw %w0", : : "r"(cr0) : "esi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_lgdt(void)
{
    struct pointer p = {(uintptr_t)gdt_limit, (uintptr_t)gdt};

    if (TRY("lgdt %0", : : "m"(p) : "esi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_rdmsr(void)
{
    if (TRY("rdmsr", : : "c"(0x1b) : "eax", "edx", "esi", "memory"))
        say("done");
    else
        say_fault();
}

static void probe_in(void)
{
    if (TRY("in $0x80, %%al", : : : "eax", "esi", "memory"))
        say("done");
    else
        say_fault();
}

static const struct probe {
    const char *name;
    void (*run)(void);
    const char *ring0, *ring3, *iopl3;
} probes[] = {
    {"pushf", probe_pushf, "IF 0 IOPL 0", "IF 1 IOPL 0", "IF 1 IOPL 3"},
    {"popf, IF", probe_popf_if, "changed", "kept", "changed"},
    {"popf, IOPL", probe_popf_iopl, "changed", "kept", "kept"},
    {"iret, IF", probe_iret_if, "changed", "kept", "changed"},
    {"sti, cli", probe_cli, "done", "#GP(0)", "done"},

    {"sgdt", probe_sgdt, "own table", "own table", "own table"},
    {"sidt", probe_sidt, "own table", "own table", "own table"},
    {"sldt", probe_sldt, "38", "38", "38"},
    {"str", probe_str, "28", "28", "28"},
    {"smsw", probe_smsw, "low CR0", "low CR0", "low CR0"},
    {"mov from cs", probe_cs, "8", "1b", "1b"},

    {"lar ring 0 code", probe_lar_kernel, "c09b00", "refused", "refused"},
    {"lar ring 3 data", probe_lar_user, "c0f300", "c0f300", "c0f300"},
    {"lar conforming code", probe_lar_conforming, "c09f00", "c09f00", "c09f00"},
    {"lar task segment", probe_lar_task, "8b00", "refused", "refused"},
    {"lar call gate", probe_lar_gate, "ec00", "ec00", "ec00"},
    {"lar null", probe_lar_null, "refused", "refused", "refused"},
    {"lar beyond the table", probe_lar_none, "refused", "refused", "refused"},
    {"lsl ring 0 data", probe_lsl_kernel, "ffffffff", "refused", "refused"},
    {"lsl ring 3 data", probe_lsl_user, "ffffffff", "ffffffff", "ffffffff"},
    {"lsl task segment", probe_lsl_task, "67", "refused", "refused"},
    {"lsl call gate", probe_lsl_gate, "refused", "refused", "refused"},
    {"verr ring 0 data", probe_verr_kernel, "readable", "not readable", "not readable"},
    {"verr ring 3 data", probe_verr_user, "readable", "readable", "readable"},
    {"verr null", probe_verr_null, "not readable", "not readable", "not readable"},
    {"verw ring 0 data", probe_verw_kernel, "writable", "not writable", "not writable"},
    {"verw ring 3 data", probe_verw_user, "writable", "writable", "writable"},
    {"verw ring 3 code", probe_verw_code, "not writable", "not writable", "not writable"},

    {"far call to ring 0", probe_call_kernel, "ran in 8", "#GP(8)", "#GP(8)"},
    {"far call to ring 3", probe_call_user, "#GP(18)", "ran in 1b", "ran in 1b"},
    {"far call, conforming", probe_call_conforming, "ran in 50", "ran in 53", "ran in 53"},
    {"far call, gate for all", probe_call_gate, "ran in 8", "ran in 8", "ran in 8"},
    {"far call, gate for ring 0", probe_call_gate0, "ran in 8", "#GP(48)", "#GP(48)"},
    {"far call, null", probe_call_null, "#GP(0)", "#GP(0)", "#GP(0)"},
    {"far call, data", probe_call_data, "#GP(20)", "#GP(20)", "#GP(20)"},
    {"far return to ring 0", probe_lret_kernel, "returned", "#GP(8)", "#GP(8)"},
    {"int, gate for ring 0", probe_int, "done", "#GP(40a)", "#GP(40a)"},
    {"mov to ds, ring 0 data", probe_load_ds, "done", "#GP(10)", "#GP(10)"},

    {"mov from cr0", probe_mov_cr0, "done", "#GP(0)", "#GP(0)"},
    {"lmsw", probe_lmsw, "done", "#GP(0)", "#GP(0)"},
    {"lgdt", probe_lgdt, "done", "#GP(0)", "#GP(0)"},
    {"rdmsr", probe_rdmsr, "done", "#GP(0)", "#GP(0)"},
    {"in", probe_in, "done", "#GP(0)", "done"},
};

static unsigned wrong;

static void compare(const char *expected)
{
    unsigned i = 0;

    while (said[i] && said[i] == expected[i])
        i++;
    if (said[i] != expected[i]) {
        print(" (FAIL, should be: %s)", expected);
        wrong++;
    }
    said_length = 0;
    said[0] = 0;
}

static void set_up(void)
{
    static const uint64_t local_table[1];
    uint64_t table = (uintptr_t)local_table, target = (uintptr_t)far_target;
    uint64_t gate = (target & 0xffff) | KERNEL_CS << 16 | (target >> 16) << 48;

    gdt[LDT_SELECTOR / 8] = (sizeof local_table - 1) | (table & 0xffffff) << 16 | 0x82ull << 40;
    gdt[LDT_SELECTOR / 8] |= (table >> 24) << 56;
    gdt[GATE_FOR_ALL / 8] = gate | 0xecull << 40;
    gdt[GATE_FOR_RING0 / 8] = gate | 0x8cull << 40;
    gdt[CONFORMING_CS / 8] = 0x00cf9f000000ffff;
    __asm__ volatile("lldt %w0" : : "r"(LDT_SELECTOR));
    tss_init(interrupt_stack_top);
    isr_init();
    for (unsigned vector = 0; vector < 32; vector++)
        isr_set(vector, on_fault);
    pic_init(); /* all masked: interrupts stay away while IF is played with */
    __asm__("mov %%cr0, %0" : "=r"(cr0));
}

static void on_return_frame(struct frame *frame)
{
    (void)frame;
    on_return();
}

static void on_ring0_int(struct frame *frame) { (void)frame; }

int main(void)
{
    uint32_t cr4;

    set_up();
    isr_set(RETURN_VECTOR, on_return_frame);
    isr_allow_user(RETURN_VECTOR);
    isr_set(RING0_VECTOR, on_ring0_int);
    __asm__("mov %%cr4, %0" : "=r"(cr4));
    check(!(cr4 & CR4_UMIP));

    for (const struct probe *p = probes; p < probes + sizeof probes / sizeof *probes; p++) {
        print("%s: ring 0 ", p->name);
        p->run();
        print("%s", said);
        compare(p->ring0);
        run_in_ring3(p->run, EFLAGS_ONE | EFLAGS_IF);
        print("; ring 3 %s", said);
        compare(p->ring3);
        run_in_ring3(p->run, EFLAGS_ONE | EFLAGS_IF | EFLAGS_IOPL);
        print("; with IOPL 3 %s", said);
        compare(p->iopl3);
        print("\n");
    }
    if (wrong)
        fail("%u results are not those of the architecture", wrong);
    print("sensitive: ok\n");
    return 0;
}
