# kbd: print every scan code that IRQ 1 brings on COM1, one a line, until the ESC key goes down (01).
# The 8042 is set to translate, so codes are of set 1, whatever firmware did before.

        .set    IMAGE_SECTORS, 2
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    KBC_WRITE_BYTE, 0x60            # command: write the controller command byte
        .set    KBC_ENABLE_KEYBOARD, 0xAE
        .set    COMMAND_BYTE, 0x45              # translate, system flag, IRQ 1
        .set    KEYBOARD_ENABLE, 0xF4
        .set    ACK, 0xFA
        .set    ESCAPE, 0x01

main:
        SET_VECTOR MASTER_BASE + 1, keyboard_interrupt
        PIC_INIT 0xFD                           # IRQ 1 alone

        call    drain
        mov     bl, KBC_WRITE_BYTE
        mov     dx, KBC_COMMAND
        call    kbc_write
        mov     bl, COMMAND_BYTE
        mov     dx, KBC_DATA
        call    kbc_write
        mov     bl, KBC_ENABLE_KEYBOARD
        mov     dx, KBC_COMMAND
        call    kbc_write
        mov     bl, KEYBOARD_ENABLE
        mov     dx, KBC_DATA
        call    kbc_write
        PRINT   "kbd: ready\r\n"

        sti
1:      hlt
        jmp     1b

# BL to port DX once the controller takes it, or after 65,536 looks.
kbc_write:
        xor     cx, cx
1:      in      al, KBC_STATUS
        test    al, KBC_IBF
        loopnz  1b
        mov     al, bl
        out     dx, al
        ret

# Throw away what the controller still holds, 16 bytes at most.
drain:
        mov     cx, 16
1:      in      al, KBC_STATUS
        test    al, KBC_OBF
        jz      2f
        in      al, KBC_DATA
        loop    1b
2:      ret

# Print the byte, but not the keyboard's own answer.
keyboard_interrupt:
        push    ax
        in      al, KBC_DATA
        cmp     al, ACK
        je      1f
        PRINT   "scan code "
        call    put_hex8
        PRINT   "\r\n"
        cmp     al, ESCAPE
        je      2f
1:      mov     al, OCW2_EOI
        out     PIC1_COMMAND, al
        pop     ax
        iret
2:      EXIT    EXIT_GOOD

        IMAGE_END
