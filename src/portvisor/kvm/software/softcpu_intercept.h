/* INS and OUTS are caught before Unicorn begins with them. Part of softcpu.c.
 *
 * Unicorn's own hook comes too late: it is not called for a REP whose count is 0, INS has stored a zero in its
 * destination by then, and OUTS has read its source. So a block that holds a string instruction is translated
 * again with a breakpoint there; the breakpoint's handler looks at permission, segment and pages, and either
 * lets the instruction go on as a block of its own or leaves it to the emulator.
 */
#ifndef PORTVISOR_SOFTCPU_INTERCEPT_H
#define PORTVISOR_SOFTCPU_INTERCEPT_H

#include "softcpu_io.h"

static int64_t signed_leb128(const uint8_t **bytes)
{
    uint64_t value = 0;
    int byte, shift = 0;
    do {
        byte = *(*bytes)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    return byte & 0x40 && shift < 64 ? (int64_t)(value | UINT64_MAX << shift) : (int64_t)value;
}

/* The block that was translated for an address. */
static char *translated_block(Cpu *c, uint64_t pc)
{
    uint64_t hash = pc ^ pc >> 6;
    return PTR(c->cs, CS_TB_JMP_CACHE + 8 * ((hash >> 6 & 0xfc0) | (hash & 0x3f)));
}

/* Behind its code each block has a table: the steps in address, flags state and host address from one instruction
 * to the next. */
static const uint8_t *instruction_table(const char *block)
{
    return (uint8_t *)PTR(block, TB_CODE) + U64(block, TB_CODE_SIZE);
}

static int64_t next_instruction(const uint8_t **table)
{
    int64_t step = signed_leb128(table);
    signed_leb128(table);
    signed_leb128(table);
    return step;
}

/* The first string instruction of a block. */
static bool find_string_instruction(Cpu *c, const char *block, uint64_t *found)
{
    uint64_t pc = U64(block, TB_PC);
    const uint8_t *table = instruction_table(block);
    for (int i = U16(block, TB_ICOUNT); i; i--) {
        pc += next_instruction(&table);
        if (decode(c, pc).string) {
            *found = pc;
            return true;
        }
    }
    return false;
}

static void set_breakpoint(Cpu *c, uint64_t pc, uint64_t block)
{
    c->intercept_block = block;
    c->intercept = (Breakpoint){.pc = pc, .flags = BP_GDB, .next = PTR(c->cs, CS_BREAKPOINTS)};
    PTR(c->cs, CS_BREAKPOINTS) = &c->intercept;
}

/* Whether it was there still. */
static bool remove_breakpoint(Cpu *c)
{
    if (PTR(c->cs, CS_BREAKPOINTS) != &c->intercept)
        return false;
    PTR(c->cs, CS_BREAKPOINTS) = c->intercept.next;
    return true;
}

/* A block was translated and is about to be executed. */
static void on_translation(void *uc, UcBlock *description, UcBlock *previous, void *user)
{
    enum { ALL_PAGES = -1 };
    Cpu *c = user;
    uint64_t pc;
    (void)previous;
    protect_block(c, description);
    if (remove_breakpoint(c) && c->intercept_block == description->pc)
        return;
    char *block = translated_block(c, description->pc);
    if (U32(block, TB_CFLAGS) & (CF_COUNT_MASK | CF_NOCACHE) || !find_string_instruction(c, block, &pc))
        return;
    U.tb_phys_invalidate(PTR(uc, UC_TCG_CTX), block, ALL_PAGES);
    set_breakpoint(c, pc, description->pc);
    U.cpu_loop_exit_noexc(c->cs);
}

/* Whether Unicorn does at least the next element exactly. INS into a device does not: it would write twice. But
 * if user space serves the device, only Unicorn's store leads there. */
static bool is_plain(Cpu *c, const Instruction *insn)
{
    if (insn->rep && !(REG(c, RCX) & address_mask(insn->address_bits)))
        return true;
    Block block = insn->input ? find_block(c, insn, insn->size, ES, RDI, MMU_STORE)
                              : find_block(c, insn, insn->size, insn->segment, RSI, MMU_LOAD);
    return block.host || (block.device && (!insn->input || !c->bus_write));
}

/* CPUClass.debug_excp_handler: the guest is at a string instruction, or at a breakpoint of its own. */
static void on_breakpoint(void *cs)
{
    Cpu *c = current;
    if (!(EFLAGS(c) & FL_RF))
        U.breakpoint_handler(cs); /* does not come back from one of the guest's */
    I32(cs, CS_EXCEPTION_INDEX) = -1;
    Instruction insn = decode(c, linear_rip(c));
    check_allowed(c, &insn, REG(c, RDX) & 0xffff, insn.size);
    if (!is_plain(c, &insn)) {
        show_rip(c);
        leave_at_instruction(c, EXIT_STRING_IO);
    }
    U32(cs, CS_CFLAGS_NEXT_TB) = ONE_INSTRUCTION;
    U.cpu_loop_exit_noexc(cs);
}

#endif
