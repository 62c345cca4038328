/*
 * 256 entry points, 16 bytes apart. Each makes the stack look the same (an error code, then the vector) and goes
 * on to one common path, which saves the registers as struct frame (isr.h) wants them.
 */
    .text
    .align 16
    .globl isr_entries
isr_entries:
    .set vector, 0
    .rept 256
    .align 16
    /* the exceptions that push an error code: AMD64 APM volume 2, 8.2 */
    .set has_error, (vector == 8) | ((vector >= 10) & (vector <= 14)) | (vector == 17) | (vector == 21)
    .set has_error, has_error | (vector == 29) | (vector == 30)
    .if !has_error
    push    $0
    .endif
    push    $vector
    jmp     isr_common
    .set vector, vector + 1
    .endr

isr_common:
    cld
#ifdef __x86_64__
    push    %rax
    push    %rcx
    push    %rdx
    push    %rbx
    push    %rbp
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rsp, %rdi
    mov     %rsp, %rbx
    and     $-16, %rsp
    call    isr_dispatch
    mov     %rbx, %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rbp
    pop     %rbx
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp
    iretq
#else
    pusha
    push    %ds
    push    %es
    mov     $0x10, %eax         /* ring 3 may have had its own */
    mov     %eax, %ds
    mov     %eax, %es
    push    %esp
    call    isr_dispatch
    add     $4, %esp
    pop     %es
    pop     %ds
    popa
    add     $8, %esp
    iret
#endif
    .section .note.GNU-stack, "", @progbits
