/*
 * Where an application processor starts: a SIPI with vector V begins at V000:0000 in real mode. smp_start() copies the
 * real mode part to page 8. From there on it goes the boot processor's way, with the same segments and page
 * tables: to protected mode, to long mode; then it takes a number and with it a stack, and calls
 * smp_arrive(number). Numbers start at 1: the boot processor is 0.
 */
#ifdef __x86_64__
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
    ljmpl   $CODE32, $protected
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
    mov     %cr4, %eax
    or      $0x20, %eax         /* CR4.PAE */
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx   /* EFER */
    rdmsr
    or      $0x100, %eax        /* EFER.LME */
    wrmsr
    mov     %cr0, %eax
    or      $0x80010000, %eax   /* CR0.PG, CR0.WP */
    mov     %eax, %cr0
    ljmp    $0x08, $long_mode

    .code64
long_mode:
    mov     $1, %edi
    lock xadd %edi, next_number
    imul    $STACK_BYTES, %edi, %eax        /* numbers start at 1: this is the end of its own stack */
    lea     ap_stacks(%rax), %rsp
    xor     %ebp, %ebp
    call    smp_arrive
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
#endif
    .section .note.GNU-stack, "", @progbits
