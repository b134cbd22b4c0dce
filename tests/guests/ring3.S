# ring3: which port accesses does the CPU refuse? One instruction a case, in ring 3 and in virtual-8086 mode,
# under an I/O permission bitmap that allows ports E0-E3 and FFFF (Intel SDM vol. 1, 19.5.2). Prints a line a
# case and leaves with 10 (all good) or 11.
#
# Ring 0 is a 16-bit protected-mode segment with base 0, so that the routines of real mode go on working.

        .set    IMAGE_SECTORS, 8
        .include "guest.inc"
        .include "text.inc"

        .set    putc, serial_putc

        .set    CR0_PE, 0x00000001
        .set    EFLAGS_FIXED, 0x00000002
        .set    EFLAGS_VM, 0x00020000
        .set    IOPL_3, 0x00003000

        .set    RING0_CODE, 0x08
        .set    RING0_DATA, 0x10
        .set    USER_CODE, 0x18 + 3
        .set    USER_DATA, 0x20 + 3
        .set    TSS_SELECTOR, 0x28

        .set    VECTORS, 32
        .set    UD, 6                           # invalid opcode
        .set    GP, 13                          # general protection
        .set    RUNS, 0xFF                      # no fault expected
        .set    ERROR_CODE_VECTORS, 0x00027D00  # 8, 10-14, 17

# 32-bit TSS (SDM vol. 3, 8.2.1) with its bitmap, in memory that is not of the image
        .set    TSS, 0x9000
        .set    TSS_ESP0, 4
        .set    TSS_SS0, 8
        .set    TSS_MAP_BASE, 0x66
        .set    TSS_MAP, 0x68
        .set    MAP_SIZE, 0x10000 / 8
        .set    FULL, TSS_MAP + MAP_SIZE        # limit: the map and its last FF byte
        .set    NO_MAP, TSS_MAP - 1             # limit just below the map
        .set    BYTE_OF_E0, TSS_MAP + 0xE0 / 8
        .set    TSS_BUSY, 2                     # in byte 5 of the descriptor

        .set    STUB_SIZE, 10
        .set    idt, TSS + 0x2200
        .set    USER_STACK, 0xC000
        .set    BUFFER, 0xC000
        .set    MARK, 0xCAFE                    # AX before each case

# a case in the table
        .set    CASE_CODE, 0
        .set    CASE_END, 2
        .set    CASE_NAME, 4
        .set    CASE_LIMIT, 6
        .set    CASE_FLAGS, 8
        .set    CASE_FLAGS_HIGH, 10
        .set    CASE_PORT, 12
        .set    CASE_COUNT, 14
        .set    CASE_VECTOR, 16
        .set    CASE_SIZE, 18

main:
        mov     di, TSS
        mov     cx, TSS_MAP
        xor     al, al
        rep     stosb
        mov     cx, MAP_SIZE + 1
        mov     al, 0xFF
        rep     stosb
        mov     byte ptr [TSS + BYTE_OF_E0], 0xF0
        mov     byte ptr [TSS + TSS_MAP + MAP_SIZE - 1], 0x7F
        mov     word ptr [TSS + TSS_SS0], RING0_DATA
        mov     word ptr [TSS + TSS_MAP_BASE], TSS_MAP

        mov     di, offset idt                  # 32-bit interrupt gates to the stubs
        mov     ax, offset stubs
        mov     cx, VECTORS
1:      mov     [di], ax
        mov     word ptr [di + 2], RING0_CODE
        mov     word ptr [di + 4], 0x8E00
        mov     word ptr [di + 6], 0
        add     di, 8
        add     ax, STUB_SIZE
        loop    1b

        lgdt    [gdt_register]
        lidt    [idt_register]
        mov     eax, cr0
        or      al, CR0_PE
        mov     cr0, eax
        ljmp    RING0_CODE, offset protected
protected:
        mov     ax, RING0_DATA
        mov     ds, ax
        mov     es, ax
        mov     ss, ax

        mov     bp, offset cases
2:      cmp     word ptr [bp + CASE_CODE], 0
        je      5f
        call    run_case
        call    judge
        mov     si, offset good_text
        jnc     3f
        mov     si, offset bad_text
        inc     word ptr [bad]
        jmp     4f
3:      inc     word ptr [good]
4:      call    puts
        mov     si, [bp + CASE_NAME]
        call    puts
        PRINT   "\r\n"
        add     bp, CASE_SIZE
        jmp     2b
5:      PRINT   "ring3: "
        movzx   eax, word ptr [good]
        call    put_decimal
        PRINT   " good, "
        movzx   eax, word ptr [bad]
        call    put_decimal
        PRINT   " bad\r\n"
        cmp     word ptr [bad], 0
        jne     6f
        EXIT    EXIT_GOOD
6:      EXIT    EXIT_BAD

# Execute the case at BP without privilege. Comes back with what ended it in `fault_*`.
run_case:
        mov     ax, [bp + CASE_LIMIT]
        mov     [tss_descriptor], ax
        and     byte ptr [tss_descriptor + 5], ~TSS_BUSY & 0xFF
        mov     ax, TSS_SELECTOR
        ltr     ax
        mov     [return_sp], sp
        movzx   eax, sp
        mov     [TSS + TSS_ESP0], eax
        movzx   ecx, word ptr [bp + CASE_FLAGS_HIGH]
        shl     ecx, 16
        mov     cx, [bp + CASE_FLAGS]
        xor     eax, eax
        test    ecx, EFLAGS_VM
        jz      1f
        push    eax                             # GS, FS, DS, ES of virtual-8086 mode
        push    eax
        push    eax
        push    eax
        push    eax                             # SS
        push    dword ptr USER_STACK
        push    ecx
        push    eax                             # CS
        jmp     2f
1:      push    dword ptr USER_DATA
        push    dword ptr USER_STACK
        push    ecx
        push    dword ptr USER_CODE
2:      movzx   eax, word ptr [bp + CASE_CODE]
        push    eax
        mov     dx, [bp + CASE_PORT]
        movzx   ecx, word ptr [bp + CASE_COUNT]
        mov     esi, BUFFER
        mov     edi, BUFFER
        mov     bx, USER_DATA
        mov     ds, bx
        mov     es, bx
        mov     eax, MARK
        iretd

# Every exception ends the case.
fault:
        push    eax
        mov     ax, RING0_DATA
        mov     ds, ax
        mov     es, ax
        pop     dword ptr [fault_eax]
        pop     dword ptr [fault_vector]
        pop     dword ptr [fault_error]
        pop     dword ptr [fault_eip]
        mov     [fault_ecx], ecx
        mov     sp, [return_sp]
        ret

# CF: the case at BP did not end as it should. One that runs ends at the HLT behind it, which is refused.
judge:
        cmp     dword ptr [fault_error], 0
        jne     2f
        movzx   eax, word ptr [bp + CASE_CODE]
        cmp     byte ptr [bp + CASE_VECTOR], RUNS
        je      1f
        cmp     eax, [fault_eip]                # restartable: nothing has changed
        jne     2f
        movzx   eax, byte ptr [bp + CASE_VECTOR]
        cmp     eax, [fault_vector]
        jne     2f
        cmp     dword ptr [fault_eax], MARK
        jne     2f
        movzx   eax, word ptr [bp + CASE_COUNT]
        cmp     eax, [fault_ecx]
        jne     2f
        clc
        ret
1:      movzx   eax, word ptr [bp + CASE_END]
        cmp     eax, [fault_eip]
        jne     2f
        cmp     dword ptr [fault_vector], GP
        jne     2f
        clc
        ret
2:      stc
        ret

# --- the cases ---------------------------------------------------------------------------------------

        .macro  CASE name, vector, code, limit=FULL, flags=EFLAGS_FIXED, port=0, count=0
        .if     (\flags) & EFLAGS_VM
        .code16
        .else
        .code32
        .endif
5:      \code
6:      hlt
        .code16
        .pushsection .text, 1
7:      .asciz  "\name"
        .popsection
        .pushsection .text, 2
        .word   5b, 6b, 7b, \limit, (\flags) & 0xFFFF, (\flags) >> 16, \port, \count, \vector
        .popsection
        .endm

        .text   2
        .balign 2
cases:
        .text   0

        CASE    "ring 3: IN AL, E0 is allowed", RUNS, "in al, 0xE0"
        CASE    "ring 3: IN AL, DF is refused", GP, "in al, 0xDF"
        CASE    "ring 3: IN AL, E4 is refused", GP, "in al, 0xE4"
        CASE    "ring 3: OUT E3, AL is allowed", RUNS, "out 0xE3, al"
        CASE    "ring 3: OUT E4, AL is refused", GP, "out 0xE4, al"
        CASE    "ring 3: IN AX, E2 is allowed", RUNS, "in ax, 0xE2"
        CASE    "ring 3: IN AX, E3 is refused, its second byte is", GP, "in ax, 0xE3"
        CASE    "ring 3: OUT DF, AX is refused, its first byte is", GP, "out 0xDF, ax"
        CASE    "ring 3: IN EAX, E0 is allowed", RUNS, "in eax, 0xE0"
        CASE    "ring 3: IN EAX, E1 is refused, its last byte is", GP, "in eax, 0xE1"
        CASE    "ring 3: IN AL, DX allowed", RUNS, "in al, dx", port=0xE1
        CASE    "ring 3: OUT DX, EAX refused", GP, "out dx, eax", port=0xE2
        CASE    "ring 3: IN AL, DX at FFFF is allowed", RUNS, "in al, dx", port=0xFFFF
        CASE    "ring 3: IN AX, DX at FFFF meets the last byte of the map", GP, "in ax, dx", port=0xFFFF
        CASE    "ring 3: REP INSB allowed", RUNS, "rep insb", port=0xE0, count=4
        CASE    "ring 3: REP INSB refused, nothing moved", GP, "rep insb", port=0xE8, count=4
        CASE    "ring 3: REP OUTSD refused, nothing moved", GP, "rep outsd", port=0xE1, count=4
        CASE    "ring 3: REP INSB of nothing is refused too", GP, "rep insb", port=0xE8, count=0
        CASE    "ring 3: no map inside the TSS", GP, "in al, 0xE0", limit=NO_MAP
        CASE    "ring 3: a map that ends before the port's byte", GP, "in al, 0xE0", limit=BYTE_OF_E0-1
        CASE    "ring 3: a map that ends with the port's byte", GP, "in al, 0xE0", limit=BYTE_OF_E0
        CASE    "ring 3: a map with one byte more", RUNS, "in al, 0xE0", limit=BYTE_OF_E0+1
        CASE    "ring 3: IOPL 3 needs no map", RUNS, "in al, 0xE8", flags=EFLAGS_FIXED|IOPL_3
        CASE    "ring 3: IOPL 3 and no map", RUNS, "out 0xE8, ax", flags=EFLAGS_FIXED|IOPL_3, limit=NO_MAP
        CASE    "ring 3: CLI is refused", GP, "cli"
        CASE    "ring 3: IOPL 3 may CLI", RUNS, "cli", flags=EFLAGS_FIXED|IOPL_3
        CASE    "ring 3: LOCK IN is no instruction", UD, ".byte 0xF0, 0xE4, 0xE0"
        CASE    "ring 3: LOCK IN is none for a refused port either", UD, ".byte 0xF0, 0xE4, 0xE8"
        CASE    "virtual 8086: IN AL, E0 is allowed", RUNS, "in al, 0xE0", flags=EFLAGS_FIXED|EFLAGS_VM
        CASE    "virtual 8086: IN AL, E8 is refused", GP, "in al, 0xE8", flags=EFLAGS_FIXED|EFLAGS_VM
        CASE    "virtual 8086: IOPL 3 does not help", GP, "in al, 0xE8", flags=EFLAGS_FIXED|EFLAGS_VM|IOPL_3
        CASE    "virtual 8086: REP OUTSW refused", GP, "rep outsw", flags=EFLAGS_FIXED|EFLAGS_VM, port=0xE3, count=2
        CASE    "virtual 8086: no map inside the TSS", GP, "in al, 0xE0", limit=NO_MAP, flags=EFLAGS_FIXED|EFLAGS_VM

        .text   2
        .word   0
        .text   0

# --- tables ------------------------------------------------------------------------------------------

# Each stub leaves error code and vector on the stack.
        .balign 2
stubs:
        .set    vector, 0
        .rept   VECTORS
5:      .if     ((ERROR_CODE_VECTORS >> vector) & 1) == 0
        push    dword ptr 0
        .endif
        push    dword ptr vector
        jmp     fault
        .org    5b + STUB_SIZE
        .set    vector, vector + 1
        .endr

        .balign 8
gdt:    .quad   0
        .quad   0x00009A000000FFFF              # ring 0 code, 16-bit, base 0, 64 KiB
        .quad   0x000092000000FFFF              # ring 0 data, the same
        .quad   0x0040FA000000FFFF              # ring 3 code, 32-bit
        .quad   0x0040F2000000FFFF              # ring 3 data
tss_descriptor:
        .word   FULL, TSS                       # available 32-bit TSS
        .byte   0, 0x89, 0, 0
gdt_register:
        .word   . - gdt - 1
        .long   gdt
        .balign 2
idt_register:
        .word   VECTORS * 8 - 1
        .long   idt

good_text:
        .asciz  "ok   "
bad_text:
        .asciz  "BAD  "

        .balign 4
fault_eax:
        .long   0
fault_ecx:
        .long   0
fault_eip:
        .long   0
fault_error:
        .long   0
fault_vector:
        .long   0
return_sp:
        .word   0
good:   .word   0
bad:    .word   0

        IMAGE_END
