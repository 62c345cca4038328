/*
 * A flat image that runs in real mode at 0000:7c00, like a boot sector: CS:IP, and nothing else, is relied on.
 * It writes one line to the serial port, then 0 to the debug exit.
 */
    .set COM1, 0x3f8
    .set LSR, COM1 + 5
    .set DEBUG_EXIT, 0xf4

    .code16
    .text
    .globl _start
_start:
    cli
    cld
    ljmp    $0, $1f             /* some firmware enters at 07c0:0000 */
1:  xor     %ax, %ax
    mov     %ax, %ds
    mov     %ax, %ss
    mov     $_start, %sp

    smsw    %ax                 /* CR0.PE says which mode this is */
    test    $1, %al
    jnz     not_real

    mov     $message, %si
    call    puts
    xor     %al, %al
    jmp     exit

not_real:
    mov     $wrong_mode, %si
    call    puts
    mov     $1, %al
exit:
    out     %al, $DEBUG_EXIT
2:  cli
    hlt
    jmp     2b

puts:
    lodsb
    test    %al, %al
    jz      4f
    mov     %al, %bl
    mov     $LSR, %dx
3:  in      %dx, %al
    test    $0x20, %al          /* transmitter empty */
    jz      3b
    mov     %bl, %al
    mov     $COM1, %dx
    out     %al, %dx
    jmp     puts
4:  ret

message:
    .asciz "hello from a pyhv guest (flat, 16-bit real mode)\nhello16: ok\n"
wrong_mode:
    .asciz "FAIL this is not real mode\n"

    .org    510                 /* so that a BIOS takes it for a boot sector */
    .word   0xaa55
    .section .note.GNU-stack, "", @progbits
