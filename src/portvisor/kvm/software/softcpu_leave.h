/* Ways out of the guest, and instructions that start over afterwards. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_LEAVE_H
#define PORTVISOR_SOFTCPU_LEAVE_H

#include "softcpu_alarm.h"

/* Keep the Python exception that is set for run() to raise; the guest stops at the next block. */
static void keep_error(Cpu *c)
{
    if (c->error[0])
        PyErr_Clear();
    else
        PyErr_Fetch(&c->error[0], &c->error[1], &c->error[2]);
    raise_pending(c, PENDING_STOP);
}

/* From a hook that has the CPU state restored to its instruction: out of emu_start, guest at the instruction. */
static _Noreturn void leave_at_instruction(Cpu *c, int reason)
{
    c->reason = reason;
    I32(c->cs, CS_EXCEPTION_INDEX) = EXCP_HLT;
    U8(c->uc, UC_STOP_REQUEST) = 1;
    U.cpu_loop_exit(c->cs);
    abort();
}

/* From on_boundary: out of emu_start before the next block. */
static bool leave_at_boundary(Cpu *c, int reason)
{
    c->reason = reason;
    I32(c->cs, CS_EXCEPTION_INDEX) = EXCP_HLT;
    U8(c->uc, UC_STOP_REQUEST) = 1;
    U8(c->cs, CS_EXIT_REQUEST) = 1;
    return false;
}

static _Noreturn void raise_in_guest(Cpu *c, int vector, int error_code)
{
    U.raise_exception(c->env, vector, error_code);
    abort();
}

static bool interrupts_enabled(Cpu *c)
{
    return (EFLAGS(c) & FL_IF) && !(HFLAGS(c) & HF_INHIBIT_IRQ);
}

/* Whether something happened in a handler that is due before the next instruction. */
static bool due_now(Cpu *c)
{
    unsigned pending = atomic_load_explicit(&c->pending, memory_order_relaxed);
    return (pending & PENDING_LEAVE) || ((pending & PENDING_IRQ) && interrupts_enabled(c));
}

/* --- instructions that start over -------------------------------------------------------------------------------
 *
 * To leave the guest in the middle of an instruction, its accesses so far are kept and it is executed again
 * later, as a block of its own, with those accesses answered from memory. So it is done once as far as devices
 * can tell, and the CPU comes to a boundary right behind it.
 */

static bool replayed(Cpu *c, int kind, uint64_t address, unsigned size, uint64_t *value)
{
    if (c->replay.next == c->replay.count)
        return false;
    const Access *access = &c->replay.done[c->replay.next++];
    if (access->kind != (unsigned)kind || access->address != address || access->size != size) {
        c->replay.count = --c->replay.next; /* another instruction after all */
        return false;
    }
    *value = access->value;
    __atomic_store_n(c->icount_high, 0xffff, __ATOMIC_SEQ_CST); /* REP jumps to itself: see starting_over first */
    return true;
}

/* Room for one more access; false if the instruction makes too many. */
static bool keep_access(Cpu *c, int kind, uint64_t address, unsigned size, uint64_t value)
{
    if (c->replay.count == MAX_REPLAY)
        return false;
    c->replay.rip = linear_rip(c);
    c->replay.done[c->replay.count++] = (Access){kind, size, address, value};
    return true;
}

static void start_over(Cpu *c)
{
    c->replay.next = 0;
    U32(c->cs, CS_CFLAGS_NEXT_TB) = ONE_INSTRUCTION;
}

/* Come to a boundary right behind the port access that was just made. */
static void stop_behind(Cpu *c, int kind, uint32_t port, int size, uint32_t value)
{
    if (!keep_access(c, kind, port, size, value))
        return;
    c->replay.elements = 1;
    start_over(c);
    U.cpu_loop_exit_noexc(c->cs);
}

/* Between two blocks: whether an instruction is still to be executed again. */
static bool starting_over(Cpu *c)
{
    if (c->replay.count && !c->replay.next && c->replay.rip == linear_rip(c))
        return true;
    c->replay.count = c->replay.next = 0;
    return false;
}

#endif
