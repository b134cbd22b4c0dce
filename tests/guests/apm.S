# apm: switch the machine off through the BIOS (Advanced Power Management 1.2, INT 15h AH=53h).

        .set    IMAGE_SECTORS, 2
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    APM_CHECK, 0x5300
        .set    APM_CONNECT_REAL, 0x5301
        .set    APM_SET_STATE, 0x5307
        .set    APM_DRIVER_VERSION, 0x530E
        .set    APM_BIOS, 0
        .set    ALL_DEVICES, 1
        .set    STATE_OFF, 3
        .set    SIGNATURE, 0x504D               # "PM"
        .set    VERSION, 0x0102

main:
        cmp     dword ptr [0x15 * 4], 0
        je      none
        sti
        mov     ax, APM_CHECK
        mov     bx, APM_BIOS
        int     0x15
        jc      none
        cmp     bx, SIGNATURE
        jne     none
        PRINT   "apm: version "
        call    put_hex16
        PRINT   "\r\n"
        mov     ax, APM_CONNECT_REAL
        mov     bx, APM_BIOS
        int     0x15
        mov     ax, APM_DRIVER_VERSION
        mov     bx, APM_BIOS
        mov     cx, VERSION
        int     0x15
        PRINT   "apm: switching off\r\n"
        mov     ax, APM_SET_STATE
        mov     bx, ALL_DEVICES
        mov     cx, STATE_OFF
        int     0x15
        PRINT   "apm: still on\r\n"
        EXIT    EXIT_BAD

none:
        PRINT   "apm: no APM BIOS\r\n"
        EXIT    EXIT_BAD

        IMAGE_END
