# warm: reset the CPU with the CMOS shutdown byte at 0A, so that a BIOS jumps back through 0040:0067 instead of
# testing the machine (IBM AT technical reference, BIOS). A firmware that starts all over instead is noticed.

        .set    IMAGE_SECTORS, 2
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    SHUTDOWN_JUMP, 0x0A             # jump to [0040:0067] without EOI
        .set    RESUME_VECTOR, 0x467
        .set    CMOS_MAGIC, 0x6E
        .set    MAGIC, 0xA5

main:
        mov     al, CMOS_MAGIC
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        cmp     al, MAGIC
        je      started_over
        mov     al, MAGIC
        out     CMOS_DATA, al
        mov     word ptr [RESUME_VECTOR], offset resumed
        mov     word ptr [RESUME_VECTOR + 2], 0
        mov     al, CMOS_SHUTDOWN
        out     CMOS_INDEX, al
        mov     al, SHUTDOWN_JUMP
        out     CMOS_DATA, al
        PRINT   "warm: reset with shutdown byte 0A\r\n"
        mov     al, KBC_PULSE_RESET
        out     KBC_COMMAND, al
1:      hlt
        jmp     1b

resumed:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, ORIGIN
        call    forget
        PRINT   "warm: resumed\r\n"
        EXIT    EXIT_GOOD

started_over:
        call    forget
        PRINT   "warm: the firmware started over\r\n"
        EXIT    EXIT_BAD

# Clear both bytes, for the next time.
forget:
        mov     al, CMOS_SHUTDOWN
        out     CMOS_INDEX, al
        xor     al, al
        out     CMOS_DATA, al
        mov     al, CMOS_MAGIC
        out     CMOS_INDEX, al
        xor     al, al
        out     CMOS_DATA, al
        ret

        IMAGE_END
