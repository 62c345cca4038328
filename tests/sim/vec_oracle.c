/* The real CPU as the judge: runs one instruction natively from a given register state and reports the state after it,
 * or the exception that it raised. Built and loaded by the differential tests; Linux on x86-64 only. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

typedef struct OracleState {
    uint8_t fx[1024];     /* FXSAVE64 image, or that of XSAVE64 with `wide` */
    uint64_t gpr[16];     /* RSP is not loaded */
    uint64_t rflags;
    uint64_t vector;      /* exception, ~0 when none */
    uint64_t host_rsp;
    uint64_t code;        /* address at which the instruction was placed */
    uint64_t wide;        /* the host's YMM registers take part */
} OracleState;

#define STATE ((OracleState *)0x20000000)
#define CODE ((uint8_t *)0x20010000)
#define DATA ((uint8_t *)0x20020000) /* 2 pages, then an unmapped one */

static sigjmp_buf oracle_back;
static uint8_t oracle_stack[65536];

static void oracle_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    (void)sig;
    (void)info;
    memcpy(STATE->fx, uc->uc_mcontext.fpregs, STATE->wide ? 832 : 512);
    for (int i = 0; i < 16; i++)
        STATE->gpr[i] = (uint64_t)uc->uc_mcontext.gregs[order[i]];
    STATE->rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    STATE->vector = (uint64_t)uc->uc_mcontext.gregs[REG_TRAPNO];
    uint32_t mxcsr = 0x1F80;
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
    siglongjmp(oracle_back, 1);
}

int oracle_init(int wide)
{
    if (mmap(STATE, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != STATE ||
        mmap(CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
            CODE ||
        mmap(DATA, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != DATA)
        return -1;
    STATE->wide = wide;
    return 0;
}

OracleState *oracle_state(void) { return STATE; }
uint8_t *oracle_data(void) { return DATA; }

static uint8_t *put(uint8_t *p, const char *bytes, int count) { memcpy(p, bytes, count); return p + count; }
static uint8_t *put_address(uint8_t *p, const void *address)
{
    uint32_t a = (uint32_t)(uintptr_t)address;
    memcpy(p, &a, 4);
    return p + 4;
}

/* mov between a general register and an absolute address */
static uint8_t *put_gpr(uint8_t *p, int reg, int store)
{
    *p++ = (uint8_t)(0x48 | (reg >> 3) << 2);
    *p++ = store ? 0x89 : 0x8B;
    *p++ = (uint8_t)(0x04 | (reg & 7) << 3);
    *p++ = 0x25;
    return put_address(p, &STATE->gpr[reg]);
}

#define PUT(s) p = put(p, s, sizeof(s) - 1)

/* Runs `length` bytes of `insn` on STATE. */
void oracle_run(const uint8_t *insn, int length)
{
    static const int signals[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
    struct sigaction old[5], action = {.sa_sigaction = oracle_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t stack = {.ss_sp = oracle_stack, .ss_size = sizeof(oracle_stack)}, old_stack;
    uint8_t *p = CODE;
    PUT("\x55\x53\x41\x54\x41\x55\x41\x56\x41\x57");                   /* push rbp rbx r12-r15 */
    PUT("\x48\x89\x24\x25"); p = put_address(p, &STATE->host_rsp);     /* mov [..], rsp */
    if (STATE->wide) {
        PUT("\xB8\x07\x00\x00\x00\x31\xD2");                            /* mov eax, 7; xor edx, edx */
        PUT("\x48\x0F\xAE\x2C\x25"); p = put_address(p, STATE->fx);    /* xrstor64 */
    } else {
        PUT("\x48\x0F\xAE\x0C\x25"); p = put_address(p, STATE->fx);    /* fxrstor64 */
    }
    PUT("\xFF\x34\x25"); p = put_address(p, &STATE->rflags);           /* push [..] */
    PUT("\x9D");                                                       /* popfq */
    for (int i = 0; i < 16; i++)
        if (i != 4)
            p = put_gpr(p, i, 0);
    STATE->code = (uint64_t)(uintptr_t)p;
    p = put(p, (const char *)insn, length);
    for (int i = 0; i < 16; i++)
        if (i != 4)
            p = put_gpr(p, i, 1);
    PUT("\x9C\x8F\x04\x25"); p = put_address(p, &STATE->rflags);       /* pushfq; pop [..] */
    if (STATE->wide) {
        PUT("\xB8\x07\x00\x00\x00\x31\xD2");
        PUT("\x48\x0F\xAE\x24\x25"); p = put_address(p, STATE->fx);    /* xsave64 */
        PUT("\xC5\xF8\x77");                                          /* vzeroupper */
    } else {
        PUT("\x48\x0F\xAE\x04\x25"); p = put_address(p, STATE->fx);    /* fxsave64 */
    }
    PUT("\xDB\xE3\xFC");                                               /* fninit; cld */
    PUT("\x41\x5F\x41\x5E\x41\x5D\x41\x5C\x5B\x5D\xC3");

    sigaltstack(&stack, &old_stack);
    for (int i = 0; i < 5; i++)
        sigaction(signals[i], &action, &old[i]);
    STATE->vector = ~0ull;
    if (sigsetjmp(oracle_back, 1) == 0)
        ((void (*)(void))(uintptr_t)CODE)();
    uint32_t mxcsr = 0x1F80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    for (int i = 0; i < 5; i++)
        sigaction(signals[i], &old[i], NULL);
    sigaltstack(&old_stack, NULL);
}
