# stringio: does this machine execute INS and OUTS? Checks them, in all forms of real mode, on four scratch
# bytes in the I/O space that keep what was written, by byte, word and dword. Prints a line a check and leaves
# with 10 (all good) or 11.
#
# The first scratch port is the word at offset 20h of the image, so that a test may put it elsewhere.

        .set    IMAGE_SECTORS, 5
        .set    PARAMETER, 0x02F0               # first scratch port
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc
        .set    BUFFER, 0xA000                  # 8 KiB
        .set    BUFFER_SIZE, 0x2000
        .set    UNTOUCHED, 0xEE
        .set    FAR_SEGMENT, 0x2000             # another segment, for overrides and wraps
        .set    EFLAGS_ARITHMETIC, 0x08D5       # OF SF ZF AF PF CF

main:
        mov     si, offset checks
1:      lodsw
        test    ax, ax
        jz      4f
        mov     bp, ax
        call    prepare
        push    si
        call    bp
        pop     si
        mov     ax, 0
        mov     ds, ax
        mov     es, ax
        cld
        jc      2f
        PRINT   "ok   "
        inc     word ptr [good]
        jmp     3f
2:      PRINT   "BAD  "
        inc     word ptr [bad]
3:      call    puts
        PRINT   "\r\n"
        jmp     1b
4:      PRINT   "stringio: "
        movzx   eax, word ptr [good]
        call    put_decimal
        PRINT   " good, "
        movzx   eax, word ptr [bad]
        call    put_decimal
        PRINT   " bad\r\n"
        cmp     word ptr [bad], 0
        jne     5f
        EXIT    EXIT_GOOD
5:      EXIT    EXIT_BAD

# A known state: buffers untouched, scratch bytes zero, DX the scratch port, SI the pattern, DI the buffer.
prepare:
        pushad
        mov     di, BUFFER
        mov     cx, BUFFER_SIZE
        mov     al, UNTOUCHED
        rep     stosb
        push    es
        push    FAR_SEGMENT
        pop     es
        xor     di, di
        xor     cx, cx                          # 64 KiB less one
        dec     cx
        rep     stosb
        stosb
        pop     es
        popad
        mov     dx, [parameter]
        xor     eax, eax
        out     dx, eax
        mov     di, BUFFER
        ret

# A check jumps to `refuse` at the first thing that is wrong.
        .macro  EXPECT what, value
        cmp     \what, \value
        jne     refuse
        .endm
refuse:
        stc
        ret
        .macro  PASS
        clc
        ret
        .endm

# --- the checks --------------------------------------------------------------------------------------

check_outsb:
        mov     si, offset pattern
        outsb
        EXPECT  si, "offset pattern + 1"
        in      al, dx
        EXPECT  al, 0x11
        PASS

check_outsw:
        mov     si, offset pattern
        outsw
        EXPECT  si, "offset pattern + 2"
        in      ax, dx
        EXPECT  ax, 0x2211
        PASS

check_outsd:
        mov     si, offset pattern
        outsd
        EXPECT  si, "offset pattern + 4"
        in      eax, dx
        EXPECT  eax, 0x44332211
        PASS

check_rep_outsb:
        mov     si, offset pattern
        mov     cx, 5
        rep     outsb
        EXPECT  cx, 0
        EXPECT  si, "offset pattern + 5"
        in      eax, dx
        EXPECT  eax, 0x00000055
        PASS

check_rep_outsw:
        mov     si, offset pattern
        mov     cx, 3
        rep     outsw
        EXPECT  cx, 0
        EXPECT  si, "offset pattern + 6"
        in      eax, dx
        EXPECT  eax, 0x00006655
        PASS

check_rep_outsd:
        mov     si, offset pattern
        mov     cx, 2
        rep     outsd
        EXPECT  cx, 0
        EXPECT  si, "offset pattern + 8"
        in      eax, dx
        EXPECT  eax, 0x88776655
        PASS

# INS leaves what is beyond alone.
        .macro  LOAD_SCRATCH
        mov     eax, 0x44332211
        out     dx, eax
        .endm

check_insb:
        LOAD_SCRATCH
        insb
        EXPECT  di, BUFFER + 1
        EXPECT  "word ptr [BUFFER]", 0xEE11
        PASS

check_rep_insb:
        LOAD_SCRATCH
        mov     cx, 3
        rep     insb
        EXPECT  cx, 0
        EXPECT  di, BUFFER + 3
        EXPECT  "dword ptr [BUFFER]", 0xEE111111
        PASS

check_rep_insw:
        LOAD_SCRATCH
        mov     cx, 3
        rep     insw
        EXPECT  cx, 0
        EXPECT  di, BUFFER + 6
        EXPECT  "dword ptr [BUFFER]", 0x22112211
        EXPECT  "dword ptr [BUFFER + 4]", 0xEEEE2211
        PASS

check_rep_insd:
        LOAD_SCRATCH
        mov     cx, 2
        rep     insd
        EXPECT  cx, 0
        EXPECT  di, BUFFER + 8
        EXPECT  "dword ptr [BUFFER + 4]", 0x44332211
        EXPECT  "byte ptr [BUFFER + 8]", UNTOUCHED
        PASS

check_count_zero:
        LOAD_SCRATCH
        mov     si, offset pattern + 4
        xor     cx, cx
        rep     outsb
        rep     insw
        EXPECT  cx, 0
        EXPECT  si, "offset pattern + 4"
        EXPECT  di, BUFFER
        EXPECT  "word ptr [BUFFER]", 0xEEEE
        in      eax, dx
        EXPECT  eax, 0x44332211
        PASS

check_count_is_16_bits:
        LOAD_SCRATCH
        mov     ecx, 0x00030002
        rep     insb
        EXPECT  ecx, 0x00030000
        EXPECT  di, BUFFER + 2
        PASS

check_down_outs:
        mov     si, offset pattern + 3
        mov     cx, 3
        std
        rep     outsb
        EXPECT  si, "offset pattern"
        in      al, dx
        EXPECT  al, 0x22
        PASS

check_down_ins:
        LOAD_SCRATCH
        mov     di, BUFFER + 6
        mov     cx, 2
        std
        rep     insw
        EXPECT  di, BUFFER + 2
        EXPECT  "dword ptr [BUFFER + 4]", 0x22112211
        EXPECT  "dword ptr [BUFFER]", 0xEEEEEEEE
        PASS

check_override:
        push    FAR_SEGMENT
        pop     fs
        mov     byte ptr fs:[0x1234], 0xA7
        mov     si, 0x1234
        outs    dx, byte ptr fs:[si]
        in      al, dx
        EXPECT  al, 0xA7
        PASS

check_ins_is_es:
        LOAD_SCRATCH
        push    FAR_SEGMENT
        pop     es
        .byte   0x3E                            # a DS override, which INS ignores
        insb
        EXPECT  "byte ptr es:[BUFFER]", 0x11
        EXPECT  "byte ptr [BUFFER]", UNTOUCHED
        PASS

check_wrap:
        LOAD_SCRATCH
        push    FAR_SEGMENT
        pop     es
        mov     di, 0xFFFE
        mov     cx, 4
        rep     insb
        EXPECT  di, 2
        EXPECT  "word ptr es:[0xFFFE]", 0x1111
        EXPECT  "dword ptr es:[0]", 0xEEEE1111
        PASS

check_address32:
        LOAD_SCRATCH
        mov     edi, BUFFER
        mov     ecx, 3
        addr32 rep insb
        EXPECT  ecx, 0
        EXPECT  edi, BUFFER + 3
        EXPECT  "dword ptr [BUFFER]", 0xEE111111
        PASS

check_repne:
        LOAD_SCRATCH
        mov     cx, 3
        .byte   0xF2, 0x6C                      # REPNE INSB repeats as REP does
        EXPECT  cx, 0
        EXPECT  "dword ptr [BUFFER]", 0xEE111111
        PASS

check_flags:
        LOAD_SCRATCH
        mov     si, offset pattern
        mov     cx, 2
        push    EFLAGS_ARITHMETIC | 2
        popf
        rep     outsb
        insb
        pushf
        pop     ax
        and     ax, EFLAGS_ARITHMETIC
        EXPECT  ax, EFLAGS_ARITHMETIC
        PASS

# Longer than any page, ring or batch.
check_long_outs:
        mov     si, BUFFER
        mov     byte ptr [BUFFER + 4999], 0xC3
        mov     cx, 5000
        rep     outsb
        EXPECT  cx, 0
        EXPECT  si, BUFFER + 5000
        in      al, dx
        EXPECT  al, 0xC3
        PASS

check_long_ins:
        LOAD_SCRATCH
        mov     di, BUFFER + 2                  # elements lie across page ends
        mov     cx, 1500
        rep     insd
        EXPECT  cx, 0
        EXPECT  di, BUFFER + 6002
        mov     di, BUFFER + 2
        mov     cx, 1500
        mov     eax, 0x44332211
        repe    scasd
        jne     refuse
        EXPECT  "word ptr [BUFFER]", 0xEEEE
        EXPECT  "dword ptr [BUFFER + 6002]", 0xEEEEEEEE
        PASS

        .macro  CHECK routine, name:vararg
        .word   \routine
        .asciz  \name
        .endm
checks:
        CHECK   check_outsb, "OUTSB"
        CHECK   check_outsw, "OUTSW"
        CHECK   check_outsd, "OUTSD"
        CHECK   check_rep_outsb, "REP OUTSB"
        CHECK   check_rep_outsw, "REP OUTSW"
        CHECK   check_rep_outsd, "REP OUTSD"
        CHECK   check_insb, "INSB"
        CHECK   check_rep_insb, "REP INSB"
        CHECK   check_rep_insw, "REP INSW"
        CHECK   check_rep_insd, "REP INSD"
        CHECK   check_count_zero, "a count of zero does nothing"
        CHECK   check_count_is_16_bits, "the count is CX, not ECX"
        CHECK   check_down_outs, "OUTSB downwards"
        CHECK   check_down_ins, "INSW downwards"
        CHECK   check_override, "OUTS with a segment override"
        CHECK   check_ins_is_es, "INS goes to ES whatever the override"
        CHECK   check_wrap, "DI wraps at 64 KiB"
        CHECK   check_address32, "32-bit addresses"
        CHECK   check_repne, "REPNE is REP"
        CHECK   check_flags, "flags stay"
        CHECK   check_long_outs, "REP OUTSB of 5000"
        CHECK   check_long_ins, "REP INSD of 1500 across pages"
        .word   0

pattern:
        .byte   0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88

        .balign 2
good:   .word   0
bad:    .word   0

        IMAGE_END
