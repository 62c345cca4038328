/*
 * Multiboot 1 entry, 32-bit protected mode, no paging.
 *
 * The loader hands over (Multiboot 0.6.96, section 3.2): EAX = 0x2badb002, EBX = the information structure,
 * flat 4 GiB segments, A20 open, interrupts off. GDTR and ESP are undefined: both are set here before use.
 * Then main(magic, info) runs, and its result is the guest's status.
 */
#define MAGIC 0x1badb002
#define FLAGS 0x00000003        /* modules page-aligned; memory sizes wanted */

    .section .multiboot, "a"
    .align 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)

    .text
    .globl _start
_start:
    cli
    cld
    mov     $stack_top, %esp
    lgdt    gdt_pointer
    ljmp    $0x08, $1f
1:  mov     $0x10, %ecx
    mov     %ecx, %ds
    mov     %ecx, %es
    mov     %ecx, %fs
    mov     %ecx, %gs
    mov     %ecx, %ss
    xor     %ebp, %ebp
    push    %ebx
    push    %eax
    call    main
    push    %eax
    call    guest_exit

    .data
    .align 8
    .globl gdt, gdt_limit, gdt_pointer
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 0x08: code, ring 0, 4 GiB */
    .quad 0x00cf93000000ffff    /* 0x10: data, ring 0, 4 GiB */
    .quad 0x00cffb000000ffff    /* 0x18: code, ring 3, 4 GiB */
    .quad 0x00cff3000000ffff    /* 0x20: data, ring 3, 4 GiB */
    .fill 6, 8, 0               /* 0x28: the task state segment; 0x38 on: for the guest (gdt.h) */
    .set gdt_limit, . - gdt - 1
gdt_pointer:
    .word gdt_limit
    .long gdt

    .bss
    .align 16
    .skip 16384
    .globl stack_top
stack_top:
    .section .note.GNU-stack, "", @progbits
