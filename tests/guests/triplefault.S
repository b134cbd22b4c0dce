# triplefault: a divide error in protected mode with an empty IDT. The CPU shuts down, which resets a PC.

        .set    IMAGE_SECTORS, 1
        .include "guest.inc"

        .set    CR0_PE, 1

main:
        mov     si, offset text
        call    serial_puts
        lgdt    [gdt_register]
        lidt    [empty_register]
        mov     eax, cr0
        or      al, CR0_PE
        mov     cr0, eax
        ljmp    8, offset protected
protected:
        xor     cx, cx
        div     cx
        EXIT    EXIT_BAD                        # it went on

text:   .asciz  "triplefault: going down\r\n"

        .balign 8
gdt:    .quad   0
        .quad   0x00009A000000FFFF              # 16-bit code, base 0, 64 KiB
gdt_register:
        .word   . - gdt - 1
        .long   gdt
empty_register:
        .word   0
        .long   0

        IMAGE_END
