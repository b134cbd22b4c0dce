/* Exceptions, interrupts, system calls, CPUID and TSC. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_EVENTS_H
#define PORTVISOR_SOFTCPU_EVENTS_H

#include "softcpu_leave.h"

/* Delivers through the guest's IDT, with the double-fault bookkeeping. May longjmp on a nested fault. */
static void on_exception(void *uc, uint32_t vector, void *user)
{
    (void)uc, (void)vector;
    U.do_interrupt(((Cpu *)user)->cs);
}

static bool on_invalid_instruction(void *uc, void *user)
{
    (void)uc;
    U.do_interrupt(((Cpu *)user)->cs);
    return true;
}

/* Signals, and a chance for other threads. */
static void tick(Cpu *c)
{
    if (PyErr_CheckSignals())
        keep_error(c);
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
}

/* The source's next vector; -1 if there is none, or an error was kept. */
static int acknowledge(Cpu *c)
{
    int vector = -1, pending = 0;
    atomic_fetch_and(&c->pending, ~(unsigned)PENDING_IRQ); /* before the look, as it may be set again meanwhile */
    PyObject *level = PyObject_GetAttr(c->source, name_pending), *result = NULL;
    if (level) {
        pending = PyObject_IsTrue(level);
        Py_DECREF(level);
    }
    if (pending > 0) {
        atomic_fetch_or(&c->pending, PENDING_IRQ); /* there may be another one behind it */
        result = PyObject_CallNoArgs(c->acknowledge);
    }
    if (result) {
        vector = PyLong_AsLong(result);
        Py_DECREF(result);
        if (!PyErr_Occurred() && (vector < 0 || vector > 255)) {
            PyErr_Format(PyExc_ValueError, "acknowledge() gave %d, not a vector", vector);
            vector = -1;
        }
    }
    if (PyErr_Occurred()) {
        keep_error(c);
        return -1;
    }
    return vector;
}

/* CPUClass.cpu_exec_interrupt: between two blocks, on entry and when icount_high was set. True: state changed. */
static bool on_boundary(void *cs, int request)
{
    Cpu *c = current;
    (void)cs, (void)request;
    atomic_thread_fence(memory_order_seq_cst); /* Unicorn cleared icount_high: look at pending only after that */
    if (starting_over(c)) {
        start_over(c); /* once more: the block for it may have been left before its instruction */
        return false;
    }
    if (c->exception >= 0) {
        int vector = c->exception;
        c->exception = -1;
        raise_in_guest(c, vector, c->error_code);
    }
    unsigned pending = atomic_load(&c->pending);
    if (pending & PENDING_TICK) {
        atomic_fetch_and(&c->pending, ~(unsigned)PENDING_TICK);
        tick(c);
    }
    if (c->error[0])
        return leave_at_boundary(c, EXIT_INTR);
    if ((pending & PENDING_LEAVE) || c->run[RUN_IMMEDIATE_EXIT]) {
        atomic_fetch_and(&c->pending, ~(unsigned)PENDING_LEAVE);
        return leave_at_boundary(c, EXIT_INTR);
    }
    if (!interrupts_enabled(c))
        return false;
    int vector = c->queued_vector;
    if (vector >= 0) {
        c->queued_vector = -1;
    } else if (c->run[RUN_REQUEST_INTERRUPT_WINDOW]) {
        return leave_at_boundary(c, EXIT_IRQ_WINDOW_OPEN);
    } else if ((pending & PENDING_IRQ) && c->source) {
        vector = acknowledge(c);
        if (c->error[0])
            return leave_at_boundary(c, EXIT_INTR);
    }
    if (vector < 0)
        return false;
    U.do_interrupt_hard(c->env, vector, 1); /* may longjmp: nothing of ours is held */
    return true;
}

static void load_flat(Cpu *c, int segment, uint32_t selector, uint32_t flags)
{
    *SEG(c, segment) = (SegmentCache){selector & 0xfffc, 0, 0xffffffff, flags};
}

enum { SYSTEM_CALL_LENGTH = 2 }; /* Unicorn adds it to RIP behind the hook */

static void on_syscall(void *uc, void *user)
{
    Cpu *c = user;
    uint32_t *hflags = &U32(c->env, ENV_HFLAGS);
    (void)uc;
    if (!(U64(c->env, ENV_EFER) & EFER_SCE))
        raise_in_guest(c, EXC_UD, 0);
    uint64_t eflags = U.read_eflags(c->env), star = U64(c->env, ENV_STAR);
    uint64_t rip = U64(c->env, ENV_EIP) + SYSTEM_CALL_LENGTH;
    uint32_t selector = (star >> 32) & 0xffff;
    uint64_t target, clear;
    if (*hflags & HF_LMA) {
        REG(c, RCX) = rip;
        REG(c, R11) = eflags & ~(uint64_t)FL_RF;
        target = U64(c->env, *hflags & HF_CS64 ? ENV_LSTAR : ENV_CSTAR);
        clear = U64(c->env, ENV_FMASK) | FL_RF;
        load_flat(c, CS, selector, FLAT_CODE_64);
        *hflags = (*hflags & ~(uint32_t)(HF_CPL | HF_ADDSEG)) | HF_CS64 | HF_CS32 | HF_SS32;
    } else {
        REG(c, RCX) = (uint32_t)rip;
        target = (uint32_t)star;
        clear = FL_IF | FL_RF | FL_VM;
        load_flat(c, CS, selector, FLAT_CODE);
        *hflags = (*hflags & ~(uint32_t)HF_CPL) | HF_CS32 | HF_SS32;
    }
    load_flat(c, SS, selector + 8, FLAT_DATA);
    U.write_eflags(c->env, eflags & ~clear, 0xffffffff);
    U64(c->env, ENV_EIP) = target - SYSTEM_CALL_LENGTH;
}

static void on_sysenter(void *uc, void *user)
{
    Cpu *c = user;
    uint32_t *hflags = &U32(c->env, ENV_HFLAGS), selector = U32(c->env, ENV_SYSENTER_CS);
    bool long_mode = *hflags & HF_LMA;
    (void)uc;
    if (!(selector & 0xfffc))
        raise_in_guest(c, EXC_GP, 0);
    U.write_eflags(c->env, U.read_eflags(c->env) & ~(uint64_t)(FL_VM | FL_IF | FL_RF), 0xffffffff);
    load_flat(c, CS, selector, long_mode ? FLAT_CODE_64 : FLAT_CODE);
    load_flat(c, SS, selector + 8, FLAT_DATA);
    *hflags = (*hflags & ~(uint32_t)HF_CPL) | HF_CS32 | HF_SS32;
    if (long_mode)
        *hflags = (*hflags & ~(uint32_t)HF_ADDSEG) | HF_CS64;
    uint64_t width = long_mode ? UINT64_MAX : UINT32_MAX;
    REG(c, RSP) = U64(c->env, ENV_SYSENTER_ESP) & width;
    U64(c->env, ENV_EIP) = (U64(c->env, ENV_SYSENTER_EIP) & width) - SYSTEM_CALL_LENGTH;
}

static const KvmCpuid *find_cpuid(Cpu *c, uint32_t function, uint32_t index)
{
    for (const KvmCpuid *entry = c->cpuid; entry < c->cpuid + c->cpuid_count; entry++)
        if (entry->function == function && (!(entry->flags & CPUID_SIGNIFICANT_INDEX) || entry->index == index))
            return entry;
    return NULL;
}

/* As KVM does it: an unknown leaf above the highest basic one reads as that one (Intel), others as zeros. */
static int on_cpuid(void *uc, void *user)
{
    Cpu *c = user;
    uint32_t function = REG(c, RAX), index = REG(c, RCX);
    (void)uc;
    const KvmCpuid *entry = find_cpuid(c, function, index);
    const KvmCpuid *first = find_cpuid(c, 0, 0), *first_extended = find_cpuid(c, 0x80000000, 0);
    bool extended = function >= 0x80000000 && first_extended && function <= first_extended->eax;
    if (!entry && first && function > first->eax && !extended)
        entry = find_cpuid(c, first->eax, index);
    REG(c, RAX) = entry ? entry->eax : 0;
    REG(c, RBX) = entry ? entry->ebx : 0;
    REG(c, RCX) = entry ? entry->ecx : 0;
    REG(c, RDX) = entry ? entry->edx : 0;
    return 1;
}

/* The TSC follows the host's monotonic clock, at the rate that CPUID gives. */
static uint64_t host_tsc(Cpu *c)
{
    return (unsigned __int128)(monotonic_ns() - c->tsc_start) * c->tsc_khz / 1000000;
}

static void read_tsc(Cpu *c)
{
    uint64_t value = host_tsc(c);
    if (c->tsc_source && !c->error[0]) {
        PyObject *result = PyObject_CallNoArgs(c->tsc_source);
        if (result) {
            value = PyLong_AsUnsignedLongLongMask(result);
            Py_DECREF(result);
        }
        if (PyErr_Occurred())
            keep_error(c);
    }
    REG(c, RAX) = (uint32_t)value;
    REG(c, RDX) = value >> 32;
}

static int on_rdtsc(void *uc, void *user)
{
    (void)uc;
    read_tsc(user);
    return 1;
}

static int on_rdtscp(void *uc, void *user)
{
    Cpu *c = user;
    read_tsc(c);
    REG(c, RCX) = U32(c->env, ENV_TSC_AUX);
    return (void)uc, 1;
}

#endif
