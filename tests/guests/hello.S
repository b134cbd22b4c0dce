# hello: print a line on the debug console (port E9) and on COM1, then leave through the exit port.

        .set    IMAGE_SECTORS, 1
        .include "guest.inc"

        .set    DEBUG_CONSOLE, 0xE9

main:
        mov     si, offset text
        call    serial_puts
        mov     si, offset text
1:      lodsb
        test    al, al
        jz      2f
        out     DEBUG_CONSOLE, al
        jmp     1b
2:      EXIT    EXIT_GOOD

text:   .asciz  "hello from port 3F8 and port E9\r\n"

        IMAGE_END
