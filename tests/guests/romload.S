# romload: a ROM that starts a guest without firmware. It is the last 512 bytes of a 64 KiB ROM whose first
# 32 KiB hold the image: it copies them to 7C00 and jumps to 0000:7C00.

        .intel_syntax noprefix
        .code16
        .arch   i386

        .set    ROM_SEGMENT, 0xF000
        .set    ROM_SIZE, 512
        .set    IN_SEGMENT, 0x10000 - ROM_SIZE
        .set    ORIGIN, 0x7C00
        .set    LONGEST_IMAGE, 0x8000

        .text
        .globl  start
start:
        cli
        cld
        mov     ax, ROM_SEGMENT
        mov     ds, ax
        xor     si, si
        xor     ax, ax
        mov     es, ax
        mov     di, ORIGIN
        mov     cx, LONGEST_IMAGE / 2
        rep     movsw
        ljmp    0, ORIGIN

        .org    ROM_SIZE - 16
        ljmp    ROM_SEGMENT, IN_SEGMENT         # the reset vector

        .org    ROM_SIZE
