# clihlt: stop for good. Nothing but an NMI or a reset wakes this CPU.

        .set    IMAGE_SECTORS, 1
        .include "guest.inc"

main:
        cli
        hlt
        jmp     main

        IMAGE_END
