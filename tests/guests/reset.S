# reset: reset the machine in every way a PC has, once each, then leave. A counter in CMOS RAM tells which
# turn it is; whatever starts the image again after a reset (firmware, a ROM, a loader) must leave it alone.

        .set    IMAGE_SECTORS, 2
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    CMOS_MAGIC, 0x6E                # bytes that no firmware uses
        .set    CMOS_TURN, 0x6F
        .set    MAGIC, 0x5A
        .set    SYSTEM_CONTROL_A, 0x92
        .set    FAST_RESET, 0x01
        .set    RESET_CONTROL, 0xCF9
        .set    RESET_HARD, 0x02
        .set    RESET_CPU, 0x04

        .macro  CMOS_READ index
        mov     al, \index
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        .endm
        .macro  CMOS_WRITE index, value
        mov     al, \index
        out     CMOS_INDEX, al
        mov     al, \value
        out     CMOS_DATA, al
        .endm

main:
        CMOS_READ CMOS_MAGIC
        cmp     al, MAGIC
        je      1f
        CMOS_WRITE CMOS_TURN, 0
        CMOS_WRITE CMOS_MAGIC, MAGIC
1:      CMOS_READ CMOS_TURN
        mov     bl, al
        inc     bl
        CMOS_WRITE CMOS_TURN, bl
        PRINT   "reset: start "
        mov     al, bl
        call    put_hex8
        cmp     bl, 1
        je      by_port_92
        cmp     bl, 2
        je      by_8042
        cmp     bl, 3
        je      by_cf9
        cmp     bl, 4
        je      by_triple_fault
        CMOS_WRITE CMOS_MAGIC, 0
        PRINT   ", done\r\n"
        EXIT    EXIT_GOOD

by_port_92:
        PRINT   ", now by port 92\r\n"
        in      al, SYSTEM_CONTROL_A
        and     al, ~FAST_RESET & 0xFF          # the edge from 0 to 1 resets
        out     SYSTEM_CONTROL_A, al
        or      al, FAST_RESET
        out     SYSTEM_CONTROL_A, al
        jmp     wait

by_8042:
        PRINT   ", now by the keyboard controller\r\n"
        xor     cx, cx
1:      in      al, KBC_STATUS
        test    al, KBC_IBF
        loopnz  1b
        mov     al, KBC_PULSE_RESET
        out     KBC_COMMAND, al
        jmp     wait

by_cf9:
        PRINT   ", now by port CF9\r\n"
        mov     dx, RESET_CONTROL
        mov     al, RESET_HARD
        out     dx, al
        mov     al, RESET_HARD | RESET_CPU
        out     dx, al
        jmp     wait

by_triple_fault:
        PRINT   ", now by a triple fault\r\n"
        lgdt    [gdt_register]
        lidt    [empty_register]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        ljmp    8, offset protected
protected:
        xor     cx, cx
        div     cx

# The reset takes effect some time after the write.
wait:
        cli
        hlt
        jmp     wait

        .balign 8
gdt:    .quad   0
        .quad   0x00009A000000FFFF
gdt_register:
        .word   . - gdt - 1
        .long   gdt
empty_register:
        .word   0
        .long   0

        IMAGE_END
