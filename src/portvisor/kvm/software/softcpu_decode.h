/* The I/O instructions: prefixes and opcode, permission. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_DECODE_H
#define PORTVISOR_SOFTCPU_DECODE_H

#include "softcpu_leave.h"
#include "softcpu_memory.h"

/* One code byte, or -1 if it cannot be read without a fault. */
static int code_byte(Cpu *c, uint64_t address)
{
    uint8_t *host = host_address(c, address, MMU_FETCH);
    return host ? *host : -1;
}

/* What prefixes and opcode say. A code page that is not RAM counts as a plain IN/OUT. */
static Instruction decode(Cpu *c, uint64_t rip)
{
    bool code64 = HFLAGS(c) & HF_CS64;
    int bits = code64 ? 64 : HFLAGS(c) & HF_CS32 ? 32 : 16, other = code64 || bits == 16 ? 32 : 16;
    Instruction insn = {.address_bits = bits, .segment = DS};
    bool size_prefix = false, rex_w = false;
    const uint8_t *code = host_address(c, rip, MMU_FETCH);

    for (int i = 0; i < 15; i++, rip++) {
        int byte;
        if (!code64)
            rip = (uint32_t)rip;
        if (code && (i == 0 || (rip & 0xfff)))
            byte = *code++;
        else
            byte = code_byte(c, rip), code = NULL;
        switch (byte) {
        case 0x26: insn.segment = ES; break;
        case 0x2e: insn.segment = CS; break;
        case 0x36: insn.segment = SS; break;
        case 0x3e: insn.segment = DS; break;
        case 0x64: insn.segment = FS; break;
        case 0x65: insn.segment = GS; break;
        case 0x66: size_prefix = true; break;
        case 0x67: insn.address_bits = other; break;
        case 0xf0: insn.lock = true; break;
        case 0xf2:
        case 0xf3: insn.rep = true; break;
        case 0x6c: case 0x6d: insn.input = true; /* fall through */
        case 0x6e: case 0x6f:
            insn.string = true;
            insn.size = !(byte & 1) ? 1 : rex_w || (bits == 16) == size_prefix ? 4 : 2;
            return insn;
        default:
            if (!code64 || (byte & 0xf0) != 0x40) /* REX */
                return insn;
        }
        rex_w = code64 && (byte & 0xf8) == 0x48; /* a REX counts right before the opcode only */
    }
    return insn;
}

/* Whether the I/O bitmap decides. */
static bool needs_permission(Cpu *c)
{
    return (HFLAGS(c) & HF_CPL) > ((EFLAGS(c) >> FL_IOPL_SHIFT) & 3) || (EFLAGS(c) & FL_VM);
}

/* LOCK, and the permission by IOPL and the TSS: #UD and #GP leave by longjmp. */
static void check_allowed(Cpu *c, const Instruction *insn, uint32_t port, int size)
{
    if (insn->lock)
        raise_in_guest(c, EXC_UD, 0);
    if (!needs_permission(c))
        return;
    (size == 1 ? U.check_iob : size == 2 ? U.check_iow : U.check_iol)(c->env, port);
}

#endif
