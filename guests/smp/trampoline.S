/*
 * Where an application processor starts: a SIPI with vector V begins at V000:0000 in real mode. main() copies the
 * real mode part to page 8; it goes to protected mode with the boot processor's segments, takes a number and with
 * it a stack, and calls ap_main(number). Numbers start at 1: the boot processor is 0.
 */
#include "smp.h"

    .text
    .globl trampoline, trampoline_end
    .code16
trampoline:
    cli
    cld
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   pointer - trampoline
    mov     %cr0, %eax
    or      $1, %al             /* CR0.PE */
    mov     %eax, %cr0
    ljmpl   $0x08, $protected
    .align 4
pointer:
    .word   gdt_limit
    .long   gdt
trampoline_end:

    .code32
protected:
    mov     $0x10, %ecx
    mov     %ecx, %ds
    mov     %ecx, %es
    mov     %ecx, %fs
    mov     %ecx, %gs
    mov     %ecx, %ss
    mov     $1, %eax
    lock xadd %eax, next_number
    imul    $STACK_BYTES, %eax, %ecx     /* numbers start at 1: this is the end of its own stack */
    lea     ap_stacks(%ecx), %esp
    push    %eax
    call    ap_main
1:  cli
    hlt
    jmp     1b

    .data
    .align 4
next_number:
    .long   1

    .bss
    .align 16
ap_stacks:
    .skip   STACK_BYTES * MAX_CPUS
    .section .note.GNU-stack, "", @progbits
