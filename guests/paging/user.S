/*
 * What runs in ring 3 (a page of its own, mapped there a second time), and the way there and back. The way back is
 * an invalid opcode: paravirtualised hosts that run ring 3 natively pass on its exceptions, but not every INT n.
 */
#include "paging.h"

    .text
    /* uint64_t run_in_ring3(uintptr_t code, uintptr_t argument): what the code leaves in RAX */
    .globl run_in_ring3
run_in_ring3:
    push    %rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rsp, kernel_rsp(%rip)
    push    $USER_SS
    push    $0                  /* no stack: the code needs none */
    push    $0x2                /* RFLAGS: interrupts off */
    push    $USER_CS
    push    %rdi
    mov     %rsi, %rdi
    xor     %eax, %eax
    iretq

    /* void leave_ring3(uint64_t rax): what the handler of #UD calls; abandons the interrupt stack */
    .globl leave_ring3
leave_ring3:
    mov     %rdi, %rax
    mov     kernel_rsp(%rip), %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret

    .balign 4096
    .globl user_page, user_read, user_write, user_jump
user_page:
user_read:
    mov     (%rdi), %eax
    ud2
user_write:
    mov     $0x77, %eax
    mov     %eax, (%rdi)
    ud2
user_jump:
    jmp     *%rdi
    .balign 4096

    /* Copied to a page that is then executed: 32 bits for RAX, and the way back from either ring. */
    .globl kernel_snippet, user_snippet, snippets_end
kernel_snippet:
    mov     $0x1234, %eax
    ret
user_snippet:
    mov     $0x5678, %eax
    ud2
snippets_end:

    .bss
    .globl interrupt_stack_top
    .align 16
kernel_rsp:
    .skip   16
    .skip   4096
interrupt_stack_top:
    .section .note.GNU-stack, "", @progbits
