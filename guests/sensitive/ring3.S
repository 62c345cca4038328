/*
 * Going to ring 3 and coming back. Ring 3 sees the same memory at the same addresses, so the function that runs there
 * is an ordinary one; what it lacks is privilege. The way back is an invalid opcode: paravirtualised hosts that run
 * ring 3 natively pass on its exceptions, but not every INT n.
 */
#include "sensitive.h"

    .text
    /* void run_in_ring3(void (*function)(void), uint64_t rflags) */
    .globl run_in_ring3
run_in_ring3:
    push    %rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rsp, kernel_rsp(%rip)
    movq    $back_to_ring0, user_stack_top - 8  /* where the function returns to */
    push    $USER_SS
    push    $user_stack_top - 8
    push    %rsi
    push    $USER_CS
    push    %rdi
    iretq

    .globl back_to_ring0
back_to_ring0:                  /* still in ring 3 */
    ud2

    /* What the handler of #UD calls; abandons the interrupt stack, the next entry starts anew on it. */
    .globl leave_ring3
leave_ring3:
    mov     kernel_rsp(%rip), %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret

    /* What far calls reach, with a 32-bit offset: notes the code segment that it runs in, and goes back. */
    .globl far_target
far_target:
    mov     %cs, %eax
    mov     %eax, far_target_cs(%rip)
    lretl

    .bss
    .globl far_target_cs, interrupt_stack_top
    .align 16
kernel_rsp:
    .skip   8
far_target_cs:
    .skip   4
    .align 16
    .skip   4096
user_stack_top:
    .skip   4096
interrupt_stack_top:
    .section .note.GNU-stack, "", @progbits
