/* Guest memory as the guest sees it, and where it holds translated code. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_MEMORY_H
#define PORTVISOR_SOFTCPU_MEMORY_H

#include "softcpu_state.h"

static int mmu_index(Cpu *c)
{
    if ((HFLAGS(c) & HF_CPL) == 3)
        return MMU_USER;
    return !(HFLAGS(c) & HF_SMAP) || (EFLAGS(c) & FL_AC) ? MMU_KNOSMAP : MMU_KSMAP;
}

static TlbEntry *tlb_entry(Cpu *c, int index, uint64_t address)
{
    uintptr_t mask = U64(c->env, ENV_TLB + 16 * index);
    char *table = PTR(c->env, ENV_TLB + 16 * index + 8);
    return (TlbEntry *)(table + ((address >> 12 << 6) & mask));
}

static bool tlb_hit(const TlbEntry *entry, uint64_t address, int access)
{
    return (entry->addr[access] & (PAGE_OF(UINT64_MAX) | TLB_INVALID)) == PAGE_OF(address);
}

/* Translation of a linear address, filled if need be; NULL if the guest may not access it so. Never faults. */
static TlbEntry *translate(Cpu *c, uint64_t address, int access)
{
    int index = mmu_index(c);
    TlbEntry *entry = tlb_entry(c, index, address);
    if (tlb_hit(entry, address, access))
        return entry;
    /* A failed probe leaves its fault in the registers of the CPU. */
    uint64_t cr2 = U64(c->env, ENV_CR + 16);
    int32_t error_code = I32(c->env, ENV_ERROR_CODE), exception = I32(c->cs, CS_EXCEPTION_INDEX);
    U.tlb_vaddr_to_host(c->env, address, access, index);
    U64(c->env, ENV_CR + 16) = cr2;
    I32(c->env, ENV_ERROR_CODE) = error_code;
    I32(c->cs, CS_EXCEPTION_INDEX) = exception;
    entry = tlb_entry(c, index, address);
    return tlb_hit(entry, address, access) ? entry : NULL;
}

/* Host address of RAM at a linear address, or NULL. Stores to code pages are included: see store_block. */
static uint8_t *host_address(Cpu *c, uint64_t address, int access)
{
    TlbEntry *entry = translate(c, address, access);
    if (!entry || (entry->addr[access] & 0xfff & ~(uint64_t)TLB_NOTDIRTY))
        return NULL;
    return (uint8_t *)(address + entry->addend);
}

static Slot *slot_of_host(Cpu *c, const uint8_t *host)
{
    for (Slot *slot = c->slots; slot < c->slots + MAX_SLOTS; slot++)
        if (slot->used && host >= slot->host && host < slot->host + slot->size)
            return slot;
    return NULL;
}

/* --- tracking of code pages -------------------------------------------------------------------------------------
 *
 * Unicorn marks TLB entries, not pages, as free of code: a store through a second mapping of a code page leaves
 * stale translations, while every store to a page that could be executed takes the slow path for ever. Here a
 * store bypasses the check only if its page holds no translated code, and translating code in a page ends that
 * for all mappings of it.
 */

/* Whether a page (Unicorn's ram address) holds translated code: its PageDesc has a first block. */
static bool has_code(Cpu *c, uint64_t ram)
{
    const uint64_t index = ram >> 12, mask = (1 << L2_ENTRIES_BITS) - 1;
    void **level = PTR(c->uc, UC_L1_MAP);
    level += (index >> U32(c->uc, UC_V_L1_SHIFT)) & (U32(c->uc, UC_V_L1_SIZE) - 1);
    for (unsigned i = U32(c->uc, UC_V_L2_LEVELS); i; i--) {
        if (!*level)
            return false;
        level = (void **)*level + ((index >> L2_ENTRIES_BITS * i) & mask);
    }
    return *level && U64(*level, PAGE_DESC_SIZE * (index & mask));
}

/* CPUClass.tlb_fill: after Unicorn's own, decide whether stores through the new entry need the check. */
static bool on_tlb_fill(void *cs, uint64_t address, int size, int access, int index, bool probe, uintptr_t retaddr)
{
    if (!U.tlb_fill(cs, address, size, access, index, probe, retaddr))
        return false;
    Cpu *c = current;
    if (!c || c->cs != cs)
        return true;
    TlbEntry *entry = tlb_entry(c, index, address);
    uint64_t page = PAGE_OF(address);
    if (entry->addr[MMU_STORE] != (page | TLB_NOTDIRTY))
        return true;
    uint8_t *host = (uint8_t *)(page + entry->addend);
    Slot *slot = slot_of_host(c, host);
    if (!slot)
        return true;
    if (entry->addr[MMU_FETCH] == UINT64_MAX) /* else Unicorn's store path would drop the mark by itself */
        entry->addr[MMU_FETCH] = page | TLB_INVALID;
    uint64_t offset = host - slot->host;
    if (slot->readonly) {
        entry->addr[MMU_STORE] |= TLB_DISCARD_WRITE; /* Unicorn would report the store and then make it */
    } else if (!has_code(c, slot->ram + offset)) {
        entry->addr[MMU_STORE] = page;
        slot->protected[offset >> 12] = 0;
    }
    return true;
}

static void protect_code(Cpu *c, uint64_t address)
{
    uint8_t *host = host_address(c, PAGE_OF(address), MMU_FETCH);
    Slot *slot = host ? slot_of_host(c, host) : NULL;
    if (!slot || slot->protected[(host - slot->host) >> 12])
        return;
    U.tlb_reset_dirty(c->cs, (uintptr_t)host, PAGE);
    slot->protected[(host - slot->host) >> 12] = 1;
}

/* A block was translated. */
static void protect_block(Cpu *c, const UcBlock *block)
{
    protect_code(c, block->pc);
    if (block->size && ((block->pc ^ (block->pc + block->size - 1)) >> 12))
        protect_code(c, block->pc + block->size - 1);
}

/* User space or a device wrote RAM at `host`: its translations are stale. */
static void drop_translations(Cpu *c, Slot *slot, const uint8_t *host, uint64_t length)
{
    uint64_t ram = slot->ram + (host - slot->host), end = ram + length;
    for (uint64_t next; ram < end; ram = next) {
        next = PAGE_OF(ram) + PAGE;
        if (has_code(c, ram))
            U.tb_invalidate(c->uc, ram, next < end ? next : end);
    }
}

#endif
