# irq: set up both 8259As and the 8254, sleep through 100 timer interrupts at 1 kHz, print their number.

        .set    IMAGE_SECTORS, 2
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    MODE2_COUNTER0, 0x34
        .set    DIVISOR, 1193                   # 1.193182 MHz / 1 kHz
        .set    TICKS, 100

main:
        SET_VECTOR MASTER_BASE, timer_interrupt
        PIC_INIT 0xFE                           # IRQ 0 alone

        mov     al, MODE2_COUNTER0
        out     PIT_CONTROL, al
        mov     al, DIVISOR & 0xFF
        out     PIT_COUNTER0, al
        mov     al, DIVISOR >> 8
        out     PIT_COUNTER0, al

1:      cli
        cmp     word ptr [ticks], TICKS
        jae     2f
        sti                                     # takes effect after the HLT: no tick is slept through
        hlt
        jmp     1b

2:      PRINT   "irq: "
        movzx   eax, word ptr [ticks]
        call    put_decimal
        PRINT   " timer interrupts\r\n"
        EXIT    EXIT_GOOD

timer_interrupt:
        push    ax
        inc     word ptr [ticks]
        cmp     word ptr [ticks], TICKS
        jb      1f
        mov     al, 0xFF                        # enough
        out     PIC1_DATA, al
1:      mov     al, OCW2_EOI
        out     PIC1_COMMAND, al
        pop     ax
        iret

        .balign 2
ticks:  .word   0

        IMAGE_END
