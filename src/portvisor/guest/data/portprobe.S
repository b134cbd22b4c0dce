# portprobe: what does this PC's I/O space answer? Prints a table on COM1 and in VGA text memory, then leaves
# through the exit port (F4 <- 10).
#
# One file, three ways in:
#   * boot sector of a disk or a partition, loaded by a BIOS;
#   * flat binary at 7C00, entered at 0000:7C00, no firmware;
#   * ROM: as the last 4 KiB below 1 MiB and 4 GiB it holds the reset vector.
#
# Every row is the same on every engine for the same board, but for the clock rows, which have lines of their
# own: "PIT counter 0", "CMOS date" and "CMOS time". Progress goes to port 80: 01 ports, 02 PIC and PIT,
# 03 clock, 04 disk, 05 PCI, 06 done.
#
# A port floats if eight reads in a row give FF; then nothing drives the data lines. The reads are harmless
# on standard hardware: they may take a byte out of a receive buffer and step a read pointer, no more, and are
# even in number, so that a low/high flip-flop stands as before.

        .set    IMAGE_SECTORS, 8
        .include "guest.inc"
        .include "text.inc"

        .set    IMAGE_SIZE, IMAGE_SECTORS * SECTOR
        .set    ROM_SEGMENT, 0xF000
        .set    ROM_OFFSET, 0x10000 - IMAGE_SIZE

        .set    READS, 8                        # even
        .set    NAME_COLUMN, 21
        .set    RESULT_COLUMN, 50
        .set    POLLS, 0x20000                  # looks at a busy device before giving up

        .set    CONFIG_ADDRESS, 0xCF8
        .set    CONFIG_DATA, 0xCFC
        .set    CONFIG_ENABLE, 0x80000000

# --- start and end -----------------------------------------------------------------------------------

main:
        call    vga_init
        PRINT   "portvisor portprobe, entered from "
        cmp     byte ptr [from_reset], 0
        je      1f
        PRINT   "the reset vector\n"
        jmp     3f
1:      cmp     dword ptr [INT13_VECTOR], 0
        jne     2f
        PRINT   "a loader, no BIOS\n"
        jmp     3f
2:      PRINT   "a BIOS, drive "
        mov     al, [boot_drive]
        call    put_hex8
        call    newline
3:
        mov     al, 0x01
        out     POST_CODE, al
        call    show_ports
        mov     al, 0x02
        out     POST_CODE, al
        call    show_interrupt_masks
        call    show_timer
        mov     al, 0x03
        out     POST_CODE, al
        call    show_clock
        mov     al, 0x04
        out     POST_CODE, al
        call    show_disk
        mov     al, 0x05
        out     POST_CODE, al
        call    show_pci
        PRINT   "done\n"
        call    vga_cursor
        mov     al, 0x06
        out     POST_CODE, al
        EXIT    EXIT_GOOD

# Print AL on both consoles; '\n' ends a line.
putc:
        inc     word ptr [column]
        cmp     al, '\n'
        jne     1f
        mov     word ptr [column], 0
        push    ax
        mov     al, '\r'
        call    serial_putc
        pop     ax
1:      call    serial_putc
        jmp     vga_putc

# Print spaces up to a column.
        .macro  TAB to
        mov     cx, \to
        call    tab
        .endm
tab:
        mov     al, ' '
1:      cmp     [column], cx
        jae     2f
        call    putc
        jmp     1b
2:      ret

# Begin a row: a label, then the column of the results.
        .macro  LABEL text:vararg
        PRINT   \text
        TAB     NAME_COLUMN
        .endm

# --- ports -------------------------------------------------------------------------------------------

show_ports:
        mov     dx, CONFIG_ADDRESS              # what CFC answers must not depend on who was here before
        mov     eax, CONFIG_ENABLE
        out     dx, eax
        mov     si, offset port_table
1:      lodsw
        mov     dx, ax                          # first port
        lodsw
        mov     bp, ax                          # last port
        test    ax, ax
        jz      5f
        mov     ax, dx
        call    put_hex16
        cmp     dx, bp
        je      2f
        mov     al, '-'
        call    putc
        mov     ax, bp
        call    put_hex16
2:      TAB     NAME_COLUMN
        call    puts
        TAB     RESULT_COLUMN
        mov     di, bp
        sub     di, dx
        inc     di                              # ports of the range
        xor     bx, bx                          # ports that answered
3:      call    read_port
        cmp     al, 0xFF
        je      4f
        inc     bx
4:      inc     dx
        cmp     dx, bp
        jbe     3b
        call    put_answers
        call    newline
        jmp     1b
5:      ret

# Read port DX `READS` times; AL is the AND of what came.
read_port:
        push    cx
        mov     cx, READS
        mov     ah, 0xFF
1:      in      al, dx
        and     ah, al
        loop    1b
        mov     al, ah
        pop     cx
        ret

# Print how many (BX) of how many (DI) ports answered.
put_answers:
        test    bx, bx
        jnz     1f
        PRINT   "floating"
        ret
1:      cmp     bx, di
        je      2f
        movzx   eax, bx
        call    put_decimal
        PRINT   " of "
        movzx   eax, di
        call    put_decimal
        mov     al, ' '
        call    putc
        PRINT   "answer"
        ret
2:      PRINT   "answers"
        ret

# --- interrupt controllers and timer -----------------------------------------------------------------

show_interrupt_masks:
        LABEL   "PIC masks"
        PRINT   "master "
        in      al, PIC1_DATA
        call    put_hex8
        PRINT   ", slave "
        in      al, PIC2_DATA
        call    put_hex8
        jmp     newline

show_timer:
        LABEL   "PIT counter 0"
        xor     al, al                          # latch counter 0
        out     PIT_CONTROL, al
        in      al, PIT_COUNTER0
        mov     ah, al
        in      al, PIT_COUNTER0
        xchg    al, ah
        call    put_hex16
        jmp     newline

# --- CMOS clock --------------------------------------------------------------------------------------

        .set    RTC_SECONDS, 0x00
        .set    RTC_MINUTES, 0x02
        .set    RTC_HOURS, 0x04
        .set    RTC_DAY, 0x07
        .set    RTC_MONTH, 0x08
        .set    RTC_YEAR, 0x09
        .set    RTC_A, 0x0A
        .set    RTC_A_UIP, 0x80
        .set    RTC_B, 0x0B
        .set    RTC_B_24H, 0x02
        .set    RTC_B_BINARY, 0x04
        .set    RTC_D, 0x0D
        .set    RTC_D_ZERO, 0x7F
        .set    RTC_CENTURY, 0x32
        .set    CLOCK_FIELDS, 7

        .macro  CMOS register
        mov     al, \register
        call    cmos_read
        .endm
cmos_read:
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        ret

show_clock:
        CMOS    RTC_D
        test    al, RTC_D_ZERO                  # always zero in an MC146818
        jz      1f
        LABEL   "CMOS clock"
        PRINT   "none\n"
        ret
1:      CMOS    RTC_B
        mov     [clock_format], al
        mov     bp, 3                           # tries for a reading that no update cut in two
2:      call    clock_wait
        mov     di, offset clock
        mov     si, offset clock_registers
        mov     cx, CLOCK_FIELDS
3:      lodsb
        call    cmos_read
        stosb
        loop    3b
        CMOS    RTC_SECONDS
        cmp     al, [clock_seconds]
        je      4f
        dec     bp
        jnz     2b
4:      LABEL   "CMOS date"
        mov     al, [clock_century]
        call    put_century
        mov     al, [clock_year]
        call    put_clock
        mov     al, '-'
        call    putc
        mov     al, [clock_month]
        call    put_clock
        mov     al, '-'
        call    putc
        mov     al, [clock_day]
        call    put_clock
        call    newline
        LABEL   "CMOS time"
        mov     al, [clock_hours]
        call    put_hours
        mov     al, ':'
        call    putc
        mov     al, [clock_minutes]
        call    put_clock
        mov     al, ':'
        call    putc
        mov     al, [clock_seconds]
        call    put_clock
        jmp     newline

# Wait until no update is in progress, but not for ever.
clock_wait:
        mov     cx, 0x4000
1:      CMOS    RTC_A
        test    al, RTC_A_UIP
        loopnz  1b
        ret

# AL as the clock keeps it -> AL binary.
clock_binary:
        test    byte ptr [clock_format], RTC_B_BINARY
        jnz     1f
        mov     ah, al
        shr     ah, 4
        and     al, 0x0F
        aad                                     # AL = 10 AH + AL
1:      ret

# Print AL, as the clock keeps it, with two digits.
put_clock:
        call    clock_binary
put_two_digits:
        aam                                     # AH = AL / 10, AL = the rest
        xchg    al, ah
        add     al, '0'
        call    putc
        mov     al, ah
        add     al, '0'
        jmp     putc

# Hours may be 1-12 with bit 7 for PM.
put_hours:
        mov     bl, al
        and     al, 0x7F
        call    clock_binary
        test    byte ptr [clock_format], RTC_B_24H
        jnz     2f
        cmp     al, 12
        jne     1f
        xor     al, al
1:      test    bl, 0x80
        jz      2f
        add     al, 12
2:      jmp     put_two_digits

# The century byte is RAM, not part of the chip: where it makes no sense, this is the 21st.
put_century:
        cmp     al, 0x19                        # BCD whatever the clock's format
        je      1f
        cmp     al, 19
        je      1f
        PRINT   "20"
        ret
1:      PRINT   "19"
        ret

# --- the first IDE disk ------------------------------------------------------------------------------

        .set    IDE, 0x1F0
        .set    ATA_DATA, 0
        .set    ATA_SECTOR_COUNT, 2
        .set    ATA_LBA_MID, 4
        .set    ATA_LBA_HIGH, 5
        .set    ATA_DEVICE, 6
        .set    ATA_STATUS, 7
        .set    ATA_COMMAND, 7
        .set    IDE_CONTROL, 0x3F6
        .set    CONTROL_NIEN, 0x02
        .set    STATUS_ERR, 0x01
        .set    STATUS_DRQ, 0x08
        .set    STATUS_DF, 0x20
        .set    STATUS_BSY, 0x80
        .set    IDENTIFY_DEVICE, 0xEC
        .set    IDENTIFY_PACKET_DEVICE, 0xA1
        .set    IDENTIFY_WORDS, 256
        .set    IDENTIFY_MODEL, 27 * 2
        .set    MODEL_LENGTH, 40
        .set    IDENTIFY_SECTORS, 60 * 2

show_disk:
        LABEL   "IDE primary master"
        mov     dx, IDE + ATA_DEVICE
        mov     al, 0xA0                        # device 0
        out     dx, al
        mov     dx, IDE + ATA_STATUS
        in      al, dx
        test    al, al                          # no device 0
        jz      disk_none
        and     al, 0x7F
        cmp     al, 0x7F                        # no drives at all: FF, or 7F with the pull-down of DD7
        je      disk_none
        mov     dx, IDE_CONTROL
        mov     al, CONTROL_NIEN
        out     dx, al
        call    disk_wait
        jc      disk_none
        mov     cl, IDENTIFY_DEVICE
        call    disk_identify
        jnc     disk_found
        mov     dx, IDE + ATA_LBA_MID           # a packet device refuses and leaves its signature
        in      al, dx
        cmp     al, 0x14
        jne     disk_none
        mov     cl, IDENTIFY_PACKET_DEVICE
        call    disk_identify
        jc      disk_none
        mov     byte ptr [disk_is_packet], 1

disk_found:
        mov     dx, IDE + ATA_DATA
        mov     di, offset sector_buffer
        mov     cx, IDENTIFY_WORDS
        rep     insw
        call    disk_quiet
        mov     si, offset sector_buffer + IDENTIFY_MODEL
        mov     cx, MODEL_LENGTH / 2
1:      rol     word ptr [si], 8                # two characters a word, the first one high
        add     si, 2
        loop    1b
        mov     cx, MODEL_LENGTH
2:      dec     si                              # without the spaces at the end
        cmp     byte ptr [si], ' '
        jne     3f
        loop    2b
3:      mov     byte ptr [si + 1], 0
        mov     si, offset sector_buffer + IDENTIFY_MODEL
        call    puts
        cmp     byte ptr [disk_is_packet], 0
        jne     4f
        PRINT   ", "
        mov     eax, [sector_buffer + IDENTIFY_SECTORS]
        call    put_decimal
        PRINT   " sectors\n"
        ret
4:      PRINT   ", packet device\n"
        ret

disk_none:
        call    disk_quiet
        PRINT   "none\n"
        ret

# Interrupts allowed again, none pending.
disk_quiet:
        mov     dx, IDE + ATA_STATUS
        in      al, dx
        mov     dx, IDE_CONTROL
        xor     al, al
        out     dx, al
        ret

# Send command CL and wait for data. CF: there is none.
disk_identify:
        mov     dx, IDE + ATA_SECTOR_COUNT
        xor     al, al
1:      out     dx, al                          # sector count and the LBA registers
        inc     dx
        cmp     dl, (IDE + ATA_LBA_HIGH) & 0xFF
        jbe     1b
        mov     dx, IDE + ATA_COMMAND
        mov     al, cl
        out     dx, al
        in      al, dx
        test    al, al
        jz      2f
        call    disk_wait
        jc      2f
        test    al, STATUS_ERR | STATUS_DF
        jnz     2f
        test    al, STATUS_DRQ
        jz      2f
        ret                                     # TEST left CF = 0
2:      stc
        ret

# Wait until not busy. AL: status. CF: time-out.
disk_wait:
        mov     dx, IDE + ATA_STATUS
        mov     ecx, POLLS
1:      in      al, dx
        test    al, STATUS_BSY
        jz      2f
        dec     ecx
        jnz     1b
        stc
2:      ret

# --- PCI bus 0 by configuration mechanism 1 ----------------------------------------------------------

        .set    PCI_ID, 0x00
        .set    PCI_CLASS_REVISION, 0x08
        .set    PCI_HEADER, 0x0C
        .set    HEADER_MULTIFUNCTION, 0x00800000
        .set    FUNCTIONS, 32 * 8

show_pci:
        mov     dx, CONFIG_ADDRESS
        in      eax, dx
        mov     ebp, eax
        mov     eax, CONFIG_ENABLE
        out     dx, eax
        in      eax, dx
        cmp     eax, CONFIG_ENABLE
        mov     eax, ebp
        out     dx, eax
        je      1f
        LABEL   "PCI"
        PRINT   "no configuration mechanism 1\n"
        ret
1:      xor     bx, bx                          # device 7:3, function 2:0
2:      mov     al, PCI_ID
        call    pci_read
        cmp     ax, 0xFFFF
        je      3f
        call    show_function
        test    bl, 7
        jnz     4f
        mov     al, PCI_HEADER
        call    pci_read
        test    eax, HEADER_MULTIFUNCTION
        jnz     4f
3:      test    bl, 7                           # function 0 is alone, or there is no device
        jnz     4f
        add     bx, 7
4:      inc     bx
        cmp     bx, FUNCTIONS
        jb      2b
        mov     dx, CONFIG_ADDRESS
        mov     eax, ebp
        out     dx, eax
        ret

# Configuration register AL (a multiple of 4) of function BL of bus 0 -> EAX.
pci_read:
        movzx   eax, al
        mov     ah, bl
        or      eax, CONFIG_ENABLE
        mov     dx, CONFIG_ADDRESS
        out     dx, eax
        mov     dx, CONFIG_DATA
        in      eax, dx
        ret

# A row for function BL, whose id register is EAX.
show_function:
        mov     edi, eax
        PRINT   "PCI 00:"
        mov     al, bl
        shr     al, 3
        call    put_hex8
        mov     al, '.'
        call    putc
        mov     al, bl
        and     al, 7
        call    put_hex4
        TAB     NAME_COLUMN
        mov     eax, edi
        call    put_hex16                       # vendor
        mov     al, ':'
        call    putc
        shr     eax, 16
        call    put_hex16                       # device
        PRINT   " class "
        mov     al, PCI_CLASS_REVISION
        call    pci_read
        shr     eax, 8
        ror     eax, 16
        call    put_hex8
        rol     eax, 16
        call    put_hex16
        jmp     newline

# --- VGA text ----------------------------------------------------------------------------------------

        .set    VGA_TEXT, 0xB800                # segment
        .set    VGA_MISC_READ, 0x3CC
        .set    CRTC, 0x3D4
        .set    CRTC_START_HIGH, 0x0C
        .set    CRTC_CURSOR_HIGH, 0x0E
        .set    COLUMNS, 80
        .set    ROWS, 25
        .set    BLANK, 0x0720                   # grey on black
        .set    MEMORY_ROWS, 0x8000 / (COLUMNS * 2)

# Look for a VGA with memory at B8000; clear its screen.
vga_init:
        mov     dx, VGA_MISC_READ
        call    read_port
        cmp     al, 0xFF
        je      1f
        push    VGA_TEXT
        pop     es
        mov     bx, es:[0]
        mov     word ptr es:[0], 0xAA55
        cmp     word ptr es:[0], 0xAA55
        mov     es:[0], bx
        jne     1f
        mov     byte ptr [vga_there], 1
        xor     di, di
        mov     cx, COLUMNS * ROWS
        mov     ax, BLANK
        rep     stosw
        call    vga_show
1:      push    ds
        pop     es
        ret

# Print AL at the end of the text.
vga_putc:
        cmp     byte ptr [vga_there], 0
        je      3f
        pushad
        push    es
        push    VGA_TEXT
        pop     es
        cmp     al, '\n'
        je      1f
        mov     di, [vga_row]
        add     di, [vga_column]
        add     di, di
        mov     ah, BLANK >> 8
        stosw
        inc     word ptr [vga_column]
        cmp     word ptr [vga_column], COLUMNS
        jb      2f
1:      call    vga_new_row
2:      pop     es
        popad
3:      ret

# Start a row below the last, moving the screen down the memory if it is full. ES: VGA_TEXT.
vga_new_row:
        mov     word ptr [vga_column], 0
        add     word ptr [vga_row], COLUMNS
        mov     ax, [vga_row]
        sub     ax, [vga_top]
        cmp     ax, COLUMNS * ROWS
        jb      2f
        add     word ptr [vga_top], COLUMNS
        cmp     word ptr [vga_row], COLUMNS * MEMORY_ROWS
        jb      1f
        call    vga_rewind
1:      mov     di, [vga_row]
        add     di, di
        mov     cx, COLUMNS
        mov     ax, BLANK
        rep     stosw
        call    vga_show
2:      ret

# Out of memory below: back to its start with the rows that stay.
vga_rewind:
        mov     si, [vga_top]
        add     si, si
        xor     di, di
        mov     cx, COLUMNS * (ROWS - 1)
        push    ds
        push    es
        pop     ds
        rep     movsw
        pop     ds
        mov     word ptr [vga_top], 0
        mov     word ptr [vga_row], COLUMNS * (ROWS - 1)
        ret

# Show the screen from `vga_top` on.
vga_show:
        mov     cx, [vga_top]
        mov     bl, CRTC_START_HIGH
        jmp     crtc_pair

# Put the cursor behind the text.
vga_cursor:
        cmp     byte ptr [vga_there], 0
        je      1f
        mov     cx, [vga_row]
        add     cx, [vga_column]
        mov     bl, CRTC_CURSOR_HIGH
        jmp     crtc_pair
1:      ret

# CX into the CRTC registers BL (high byte) and BL + 1 (low byte).
crtc_pair:
        mov     dx, CRTC
        mov     al, bl
        mov     ah, ch
        out     dx, ax
        inc     ax
        mov     ah, cl
        out     dx, ax
        ret

# --- data --------------------------------------------------------------------------------------------

        .macro  PORTS first, last, name:vararg
        .word   \first, \last
        .asciz  \name
        .endm
port_table:
        PORTS   0x0000, 0x001F, "DMA controller 1"
        PORTS   0x0020, 0x0021, "interrupt controller 1"
        PORTS   0x0040, 0x0043, "interval timer"
        PORTS   0x0050, 0x0053, "interval timer, alias"
        PORTS   0x0060, 0x0060, "keyboard controller data"
        PORTS   0x0061, 0x0061, "system control B"
        PORTS   0x0064, 0x0064, "keyboard controller status"
        PORTS   0x0070, 0x0071, "CMOS and clock"
        PORTS   0x0080, 0x008F, "DMA page registers"
        PORTS   0x0092, 0x0092, "system control A"
        PORTS   0x00A0, 0x00A1, "interrupt controller 2"
        PORTS   0x00B2, 0x00B3, "power management (SMI)"
        PORTS   0x00C0, 0x00DF, "DMA controller 2"
        PORTS   0x00E9, 0x00E9, "debug console E9"
        PORTS   0x00F0, 0x00FF, "coprocessor"
        PORTS   0x0170, 0x0177, "IDE secondary"
        PORTS   0x01F0, 0x01F7, "IDE primary"
        PORTS   0x0278, 0x027A, "parallel port 2"
        PORTS   0x02E8, 0x02EF, "serial port 4"
        PORTS   0x02F8, 0x02FF, "serial port 2"
        PORTS   0x0376, 0x0376, "IDE secondary control"
        PORTS   0x0378, 0x037A, "parallel port 1"
        PORTS   0x03B0, 0x03BB, "monochrome display"
        PORTS   0x03C0, 0x03DF, "VGA"
        PORTS   0x03E8, 0x03EF, "serial port 3"
        PORTS   0x03F0, 0x03F5, "floppy controller"
        PORTS   0x03F6, 0x03F6, "IDE primary control"
        PORTS   0x03F7, 0x03F7, "floppy disk change"
        PORTS   0x03F8, 0x03FF, "serial port 1"
        PORTS   0x0402, 0x0402, "debug console 402"
        PORTS   0x04D0, 0x04D1, "interrupt edge/level control"
        PORTS   0x0510, 0x0511, "firmware configuration"
        PORTS   0x0CA8, 0x0CA8, "IPMI KCS data"
        PORTS   0x0CAC, 0x0CAC, "IPMI KCS status"
        PORTS   0x0CF8, 0x0CFB, "PCI configuration address"
        PORTS   0x0CFC, 0x0CFF, "PCI configuration data"
        .word   0, 0

clock_registers:
        .byte   RTC_SECONDS, RTC_MINUTES, RTC_HOURS, RTC_DAY, RTC_MONTH, RTC_YEAR, RTC_CENTURY
clock:
clock_seconds:
        .byte   0
clock_minutes:
        .byte   0
clock_hours:
        .byte   0
clock_day:
        .byte   0
clock_month:
        .byte   0
clock_year:
        .byte   0
clock_century:
        .byte   0
clock_format:
        .byte   0

from_reset:
        .byte   0
disk_is_packet:
        .byte   0
vga_there:
        .byte   0
        .balign 2
column:
        .word   0
vga_column:
        .word   0                               # in the row
vga_row:
        .word   0                               # word offset of the row in memory
vga_top:
        .word   0                               # word offset of the top row on the screen

        .set    sector_buffer, ORIGIN + IMAGE_SIZE

# --- the reset vector --------------------------------------------------------------------------------

# In ROM, no memory written yet: copy the image to where it belongs.
from_rom:
        cli
        cld
        mov     ax, ROM_SEGMENT
        mov     ds, ax
        mov     si, ROM_OFFSET
        xor     ax, ax
        mov     es, ax
        mov     di, ORIGIN
        mov     cx, IMAGE_SIZE / 2
        rep     movsw
        inc     byte ptr es:[from_reset]
        ljmp    0, offset begin

        .text   LAST_SUBSECTION
        .org    start + IMAGE_SIZE - 16
        ljmp    ROM_SEGMENT, ROM_OFFSET + (from_rom - start)

        IMAGE_END
