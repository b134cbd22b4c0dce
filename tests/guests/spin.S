# spin: jump to itself, with interrupts off and no port access: only a watchdog ends it.

        .set    IMAGE_SECTORS, 1
        .include "guest.inc"

main:
        jmp     main

        IMAGE_END
