/*
 * Going to ring 3 and coming back. Segments are flat and there is no paging, so the function that runs in ring 3
 * is an ordinary one and sees all memory; what it lacks is privilege.
 */
#include "sensitive.h"

    .text
    /* void run_in_ring3(void (*function)(void), uint32_t eflags) */
    .globl run_in_ring3
run_in_ring3:
    push    %ebp
    push    %ebx
    push    %esi
    push    %edi
    mov     20(%esp), %eax
    mov     24(%esp), %edx
    mov     %esp, kernel_esp
    mov     $USER_DS, %ecx
    mov     %ecx, %ds
    mov     %ecx, %es
    movl    $back_to_ring0, user_stack_top - 4  /* where the function returns to */
    push    $USER_DS
    push    $user_stack_top - 4
    push    %edx
    push    $USER_CS
    push    %eax
    iret

back_to_ring0:                  /* still in ring 3 */
    int     $RETURN_VECTOR

    /* The handler of RETURN_VECTOR; leaves the interrupt stack as it is, the next entry starts anew on it. */
    .globl on_return
on_return:
    mov     $KERNEL_DS, %ecx
    mov     %ecx, %ds
    mov     %ecx, %es
    mov     kernel_esp, %esp
    pop     %edi
    pop     %esi
    pop     %ebx
    pop     %ebp
    ret

    /* What far calls reach: notes the code segment that it runs in, and goes back. */
    .globl far_target
far_target:
    mov     %cs, %eax
    mov     %eax, far_target_cs
    lret

    .bss
    .globl far_target_cs, interrupt_stack_top
    .align 16
kernel_esp:
    .skip   4
far_target_cs:
    .skip   4
    .align 16
    .skip   4096
user_stack_top:
    .skip   4096
interrupt_stack_top:
    .section .note.GNU-stack, "", @progbits
