/*
 * PVH entry, then long mode.
 *
 * The loader finds the entry point in a Xen ELF note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY) and enters there
 * in 32-bit protected mode without paging, EBX = the physical address of the start info structure.
 * Long mode needs, in this order: CR4.PAE, CR3, EFER.LME, CR0.PG, and a jump to a 64-bit code segment
 * (AMD64 APM volume 2, 14.6). Then main(start_info) runs, and its result is the guest's status.
 *
 * The first 4 GiB are mapped one to one by 2 MiB pages; the last GiB, where the devices are, uncached.
 * The tables are data, not code: a guest starts faster when nothing has to fill them.
 */
#define PAGE_TABLE      0x003   /* present, writable */
#define PAGE_RAM        0x083   /* and 2 MiB */
#define PAGE_DEVICE     0x09b   /* and PWT, PCD: uncached */

    .section .note.Xen, "a", @note
    .align 4
    .long 4, 4, 18              /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    mov     $stack_top, %esp
    lgdt    gdt_pointer
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
    or      $0x80010000, %eax   /* CR0.PG and WP: supervisor writes respect read-only pages */
    mov     %eax, %cr0
    ljmp    $0x08, $1f

    .code64
1:  mov     $0x10, %ecx
    mov     %ecx, %ds
    mov     %ecx, %es
    mov     %ecx, %fs
    mov     %ecx, %gs
    mov     %ecx, %ss
    xor     %ebp, %ebp
    mov     %ebx, %edi          /* main's argument, zero-extended */
    call    main
    mov     %eax, %edi
    call    guest_exit

    .data
    .align 4096
    .globl pml4
pml4:
    .quad pdpt + PAGE_TABLE
    .fill 511, 8, 0
pdpt:
    .quad page_dirs + PAGE_TABLE, page_dirs + 0x1000 + PAGE_TABLE
    .quad page_dirs + 0x2000 + PAGE_TABLE, page_dirs + 0x3000 + PAGE_TABLE
    .fill 508, 8, 0
page_dirs:
    .set frame, 0
    .rept 3 * 512
    .quad frame + PAGE_RAM
    .set frame, frame + 0x200000
    .endr
    .rept 512
    .quad frame + PAGE_DEVICE
    .set frame, frame + 0x200000
    .endr

    .globl gdt, gdt_limit, gdt_pointer
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 0x08: 64-bit code, ring 0 */
    .quad 0x00cf93000000ffff    /* 0x10: data, ring 0 */
    .quad 0x00affb000000ffff    /* 0x18: 64-bit code, ring 3 */
    .quad 0x00cff3000000ffff    /* 0x20: data, ring 3 */
    .fill 6, 8, 0               /* 0x28: the task state segment; 0x38 on: for the guest (gdt.h) */
    .set gdt_limit, . - gdt - 1
gdt_pointer:
    .word gdt_limit
    .quad gdt

    .bss
    .align 16
    .skip 16384
    .globl stack_top
stack_top:
    .section .note.GNU-stack, "", @progbits
