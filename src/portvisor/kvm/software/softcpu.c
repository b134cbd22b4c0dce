/* _softcpu: Unicorn 2.1.4 made the processor of a PC.
 *
 * Unicorn executes ordinary code well but leaves out what a PC's system software needs: port permission,
 * exact I/O intercepts, interrupts, SYSCALL, tracking of code pages. This module adds it through Unicorn's
 * public hooks and through internal functions that its Linux wheels export (unicorn_abi.h). All of it runs in
 * the thread that called run(), with the GIL held, so that a device handler is one vectorcall away.
 *
 * Many of Unicorn's functions leave by longjmp. They are called only with no Python frame between them and
 * uc_emu_start, and with every reference given back.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

#include "softcpu_events.h"
#include "softcpu_intercept.h"

/* --- registers, as bytes of Unicorn's state ------------------------------------------------------------------ */

static bool state_range(Py_ssize_t offset, Py_ssize_t size)
{
    if (offset >= 0 && size >= 0 && size <= ENV_SIZE && offset <= ENV_SIZE - size)
        return true;
    PyErr_SetString(PyExc_ValueError, "outside of the CPU's state");
    return false;
}

static PyObject *cpu_read_state(Cpu *c, PyObject *arguments)
{
    Py_ssize_t offset, size;
    if (!PyArg_ParseTuple(arguments, "nn", &offset, &size) || !state_range(offset, size))
        return NULL;
    if (!c->uc)
        return require_stopped(c), NULL;
    return PyBytes_FromStringAndSize(c->env + offset, size);
}

static PyObject *cpu_write_state(Cpu *c, PyObject *arguments)
{
    Py_ssize_t offset;
    Py_buffer bytes;
    if (!PyArg_ParseTuple(arguments, "ny*", &offset, &bytes))
        return NULL;
    bool good = state_range(offset, bytes.len) && require_stopped(c) == 0;
    if (good)
        memcpy(c->env + offset, bytes.buf, bytes.len);
    PyBuffer_Release(&bytes);
    return good ? Py_NewRef(Py_None) : NULL;
}

/* EFLAGS whole, in a handler too. */
static PyObject *cpu_eflags(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (!c->uc)
        return require_stopped(c), NULL;
    uint64_t running = c->running ? U.read_eflags(c->env) : 0;
    return PyLong_FromUnsignedLongLong(running | (EFLAGS(c) & (c->running ? FL_VM | FL_RF : UINT64_MAX)));
}

static void forget_events(Cpu *c)
{
    c->replay.count = c->replay.next = 0;
    c->replay.answer_expected = false;
    c->queued_vector = c->exception = -1;
}

static PyObject *cpu_reset_state(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (require_stopped(c))
        return NULL;
    U.cpu_reset(c->cs);
    U.tlb_flush(c->cs);
    U32(c->cs, CS_INTERRUPT_REQUEST) = CPU_INTERRUPT_HARD; /* for good: on_boundary is always asked */
    c->tsc_start = monotonic_ns();
    forget_events(c);
    Py_RETURN_NONE;
}

/* What was derived from registers and memory. translations: those too, as what they depend on has changed. */
static PyObject *cpu_flush(Cpu *c, PyObject *translations)
{
    if (require_stopped(c))
        return NULL;
    U.tlb_flush(c->cs);
    if (translations == Py_True)
        U.tb_flush(c->cs);
    Py_RETURN_NONE;
}

enum { SAVED_STATE_SIZE = ENV_END_RESET_FIELDS + 8 }; /* the registers that RESET# clears, and the TSC */

static PyObject *cpu_save_state(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (require_stopped(c))
        return NULL;
    if (c->replay.count || c->queued_vector >= 0 || c->exception >= 0)
        return PyErr_SetString(EngineError, "an instruction is under way: run() with immediate_exit first"), NULL;
    PyObject *state = PyBytes_FromStringAndSize(NULL, SAVED_STATE_SIZE);
    if (!state)
        return NULL;
    char *bytes = PyBytes_AS_STRING(state);
    uint64_t tsc = host_tsc(c);
    memcpy(bytes, c->env, ENV_END_RESET_FIELDS);
    memset(bytes + ENV_BREAKPOINTS, 0, ENV_OLD_EXCEPTION - ENV_BREAKPOINTS); /* host pointers */
    memcpy(bytes + ENV_END_RESET_FIELDS, &tsc, sizeof tsc);
    return state;
}

static PyObject *cpu_restore_state(Cpu *c, PyObject *state)
{
    enum { DR7 = ENV_DR + 8 * 7, DR7_DISABLED = 0x400 };
    if (require_stopped(c))
        return NULL;
    if (!PyBytes_Check(state) || PyBytes_GET_SIZE(state) != SAVED_STATE_SIZE)
        return PyErr_SetString(PyExc_ValueError, "not a saved state of this engine"), NULL;
    const char *bytes = PyBytes_AS_STRING(state);
    uint64_t tsc, dr7;
    U.update_dr7(c->env, DR7_DISABLED); /* gives breakpoints back before their pointers go */
    memcpy(c->env, bytes, ENV_END_RESET_FIELDS);
    memset(c->env + ENV_BREAKPOINTS, 0, ENV_OLD_EXCEPTION - ENV_BREAKPOINTS);
    dr7 = U64(c->env, DR7);
    U64(c->env, DR7) = DR7_DISABLED;
    U.update_dr7(c->env, dr7);
    U.tlb_flush(c->cs);
    memcpy(&tsc, bytes + ENV_END_RESET_FIELDS, sizeof tsc);
    c->tsc_start = monotonic_ns() - (int64_t)((unsigned __int128)tsc * 1000000 / c->tsc_khz);
    forget_events(c);
    Py_RETURN_NONE;
}

/* --- guest memory -------------------------------------------------------------------------------------------- */

static PyObject *unicorn_failed(const char *what, int error)
{
    return PyErr_Format(EngineError, "unicorn: %s: %s", what, U.uc_strerror(error));
}

/* map_memory(gpa, memory, offset, size, readonly) */
static PyObject *cpu_map_memory(Cpu *c, PyObject *arguments)
{
    unsigned long long gpa, offset, size;
    PyObject *memory;
    int readonly;
    if (!PyArg_ParseTuple(arguments, "KOKKp", &gpa, &memory, &offset, &size, &readonly) || require_stopped(c))
        return NULL;
    Slot *slot = c->slots;
    while (slot < c->slots + MAX_SLOTS && slot->used)
        slot++;
    if (slot == c->slots + MAX_SLOTS)
        return PyErr_SetString(EngineError, "too many memory slots"), NULL;
    Slot new = {.used = true, .readonly = readonly, .gpa = gpa, .size = size};
    if (PyObject_GetBuffer(memory, &new.view, PyBUF_WRITABLE))
        return PyErr_SetString(EngineError, "the memory of a slot must be mapped writable or ACCESS_COPY"), NULL;
    new.host = (uint8_t *)new.view.buf + offset;
    new.protected = PyMem_Calloc(size / PAGE + 1, 1);
    int error = 0, permissions = UC_PROT_READ | UC_PROT_EXEC | (readonly ? 0 : UC_PROT_WRITE);
    if (!new.protected)
        PyErr_NoMemory();
    else if (offset + size > (uint64_t)new.view.len || offset + size < size || (uintptr_t)new.host & (PAGE - 1))
        PyErr_SetString(EngineError, "a memory slot must be pages inside its buffer");
    else if ((error = U.uc_mem_map_ptr(c->uc, gpa, size, permissions, new.host)))
        unicorn_failed("cannot map memory", error);
    if (PyErr_Occurred()) {
        PyMem_Free(new.protected);
        PyBuffer_Release(&new.view);
        return NULL;
    }
    new.ram = U.ram_addr_from_host(c->uc, new.host);
    *slot = new;
    Py_RETURN_NONE;
}

static PyObject *cpu_map_hole(Cpu *c, PyObject *arguments)
{
    unsigned long long gpa, size;
    if (!PyArg_ParseTuple(arguments, "KK", &gpa, &size) || require_stopped(c))
        return NULL;
    void *base = (void *)(uintptr_t)gpa;
    int error = U.uc_mmio_map(c->uc, gpa, size, on_mmio_read, base, on_mmio_write, base);
    return error ? unicorn_failed("cannot map a hole", error) : Py_NewRef(Py_None);
}

static void release_slot(Slot *slot)
{
    PyMem_Free(slot->protected);
    PyBuffer_Release(&slot->view);
    memset(slot, 0, sizeof *slot);
}

/* unmap(gpa, size): a whole memory or hole */
static PyObject *cpu_unmap(Cpu *c, PyObject *arguments)
{
    unsigned long long gpa, size;
    if (!PyArg_ParseTuple(arguments, "KK", &gpa, &size) || require_stopped(c))
        return NULL;
    int error = U.uc_mem_unmap(c->uc, gpa, size);
    if (error)
        return unicorn_failed("cannot unmap", error);
    for (Slot *slot = c->slots; slot < c->slots + MAX_SLOTS; slot++)
        if (slot->used && slot->gpa == gpa)
            release_slot(slot);
    Py_RETURN_NONE;
}

static PyObject *cpu_memory_written(Cpu *c, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2)
        return PyErr_SetString(PyExc_TypeError, "need start and end"), NULL;
    uint64_t start = PyLong_AsUnsignedLongLong(arguments[0]), end = PyLong_AsUnsignedLongLong(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    for (Slot *slot = c->slots; c->uc && slot < c->slots + MAX_SLOTS; slot++) {
        uint64_t from = start > slot->gpa ? start : slot->gpa;
        uint64_t to = end < slot->gpa + slot->size ? end : slot->gpa + slot->size;
        if (slot->used && from < to)
            drop_translations(c, slot, slot->host + (from - slot->gpa), to - from);
    }
    Py_RETURN_NONE;
}

/* --- the run loop -------------------------------------------------------------------------------------------- */

static void describe_exit(Cpu *c, int reason)
{
    U32(c->run, RUN_EXIT_REASON) = reason;
    c->run[RUN_READY_FOR_INJECTION] = interrupts_enabled(c) && c->queued_vector < 0 && c->exception < 0;
    c->run[RUN_IF_FLAG] = (U64(c->env, ENV_EFLAGS) & FL_IF) != 0;
    U16(c->run, RUN_FLAGS) = 0;
    U64(c->run, RUN_CR8) = U8(c->env, ENV_V_TPR);
}

/* Whether a halted guest would be woken at once. -1: the source raised. */
static int interrupt_waiting(Cpu *c)
{
    int waiting = 0;
    if (!interrupts_enabled(c))
        return 0;
    if (c->queued_vector >= 0)
        return 1;
    if (c->source && (atomic_load(&c->pending) & PENDING_IRQ)) {
        PyObject *level = PyObject_GetAttr(c->source, name_pending);
        waiting = level ? PyObject_IsTrue(level) : -1;
        Py_XDECREF(level);
    }
    return waiting;
}

static int internal_error(Cpu *c, int error)
{
    U32(c->run, RUN_UNION) = INTERNAL_ERROR_EMULATION;
    U32(c->run, RUN_UNION + 4) = 1; /* words of data */
    U64(c->run, RUN_UNION + 8) = error;
    return EXIT_INTERNAL_ERROR;
}

/* Into the guest once; the reason it was left for. */
static int enter_guest(Cpu *c)
{
    Cpu *outer = current;
    c->reason = 0;
    c->running = true;
    current = c;
    if (c->replay.count)
        start_over(c);
    int error = U.uc_emu_start(c->uc, U64(c->env, ENV_EIP), 0, 0, 0);
    remove_breakpoint(c);
    current = outer;
    c->running = false;
    if (c->reason)
        return c->reason;
    if (error)
        return internal_error(c, error);
    return I32(c->cs, CS_HALTED) ? EXIT_HLT : EXIT_SHUTDOWN;
}

static PyObject *cpu_run(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    int reason;
    if (require_stopped(c) || start_alarm_thread(c))
        return NULL;
    if (c->replay.answer_expected) { /* user space has put the data of a read where struct kvm_run says */
        Access *access = &c->replay.done[c->replay.count - 1];
        c->replay.answer_expected = false;
        memcpy(&access->value, c->run + (access->kind == PORT_READ ? PIO_DATA : RUN_MMIO_DATA), access->size);
    }
    atomic_store(&c->active, true);
    if (atomic_load(&c->wake) == NEVER)
        wake_alarm_thread(c);
    do {
        reason = enter_guest(c);
        if (reason == EXIT_HLT) {
            int waiting = c->error[0] ? 0 : interrupt_waiting(c);
            if (waiting < 0)
                keep_error(c);
            else if (waiting)
                reason = 0;
        }
    } while (!reason);
    atomic_store(&c->active, false);
    describe_exit(c, reason);
    if (c->error[0]) {
        PyErr_Restore(c->error[0], c->error[1], c->error[2]);
        memset(c->error, 0, sizeof c->error);
        atomic_fetch_and(&c->pending, ~(unsigned)PENDING_STOP);
        return NULL;
    }
    return PyLong_FromLong(reason);
}

/* KVM_INTERRUPT. */
static PyObject *cpu_interrupt(Cpu *c, PyObject *number)
{
    long vector = PyLong_AsLong(number);
    if (PyErr_Occurred() || require_stopped(c))
        return NULL;
    if (vector < 0 || vector > 255)
        return PyErr_Format(EngineError, "interrupt vector %ld is not one of 0-255", vector), NULL;
    if (c->queued_vector >= 0)
        return PyErr_SetString(EngineError, "an interrupt is queued already"), NULL;
    c->queued_vector = vector;
    Py_RETURN_NONE;
}

/* Raise an exception in the guest before its next instruction. */
static PyObject *cpu_inject_exception(Cpu *c, PyObject *arguments)
{
    int vector, error_code;
    if (!PyArg_ParseTuple(arguments, "ii", &vector, &error_code) || require_stopped(c))
        return NULL;
    if (vector < 0 || vector > 31)
        return PyErr_Format(EngineError, "exception vector %d is not one of 0-31", vector), NULL;
    c->exception = vector;
    c->error_code = error_code;
    Py_RETURN_NONE;
}

/* --- connecting the machine ---------------------------------------------------------------------------------- */

static void put(PyObject **place, PyObject *value)
{
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

static int put_attribute(PyObject **place, PyObject *object, const char *name)
{
    PyObject *value = object == Py_None ? NULL : PyObject_GetAttrString(object, name);
    if (!value && PyErr_Occurred())
        return -1;
    put(place, value);
    return 0;
}

static int put_tables(PyObject **tables, PyObject *object, const char *name)
{
    PyObject *three = object == Py_None ? NULL : PyObject_GetAttrString(object, name);
    if (!three && PyErr_Occurred())
        return -1;
    bool three_of_them = three && PyTuple_Check(three) && PyTuple_GET_SIZE(three) == 3;
    for (int i = 0; i < 3; i++) {
        PyObject *table = three_of_them ? PyTuple_GET_ITEM(three, i) : NULL;
        if (three && (!table || !PyList_CheckExact(table))) {
            Py_DECREF(three);
            PyErr_Format(PyExc_TypeError, "%s must be a tuple of three lists", name);
            return -1;
        }
        put(&tables[i], Py_XNewRef(table));
    }
    Py_XDECREF(three);
    return 0;
}

static PyObject *cpu_serve_ports(Cpu *c, PyObject *tables)
{
    if (put_tables(c->tables[0], tables, "reads") || put_tables(c->tables[1], tables, "writes"))
        return NULL;
    if (put_attribute(&c->read_block, tables, "read_block"))
        return NULL;
    if (put_attribute(&c->write_block, tables, "write_block"))
        return NULL;
    if (put_attribute(&c->failed, tables, "failed"))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *cpu_serve_memory(Cpu *c, PyObject *bus)
{
    if (put_attribute(&c->bus_read, bus, "read") || put_attribute(&c->bus_write, bus, "write"))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *cpu_set_io_bus(Cpu *c, PyObject *arguments)
{
    Py_buffer ports;
    PyObject *write;
    if (!PyArg_ParseTuple(arguments, "y*O", &ports, &write))
        return NULL;
    bool good = ports.len == sizeof c->io_bus_ports;
    if (good) {
        memcpy(c->io_bus_ports, ports.buf, sizeof c->io_bus_ports);
        put(&c->io_bus_write, write == Py_None ? NULL : Py_NewRef(write));
    } else {
        PyErr_SetString(PyExc_ValueError, "need one bit for each of 65536 ports");
    }
    PyBuffer_Release(&ports);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *cpu_set_interrupt_source(Cpu *c, PyObject *source)
{
    if (put_attribute(&c->acknowledge, source, "acknowledge"))
        return NULL;
    put(&c->source, source == Py_None ? NULL : Py_NewRef(source));
    raise_pending(c, PENDING_IRQ);
    Py_RETURN_NONE;
}

/* Whether something is due between two elements of a string instruction. */
static PyObject *cpu_interrupted(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(c->uc && due_now(c));
}

static PyObject *cpu_set_tsc(Cpu *c, PyObject *arguments)
{
    unsigned long long khz;
    PyObject *source;
    if (!PyArg_ParseTuple(arguments, "KO", &khz, &source))
        return NULL;
    if (!khz)
        return PyErr_SetString(PyExc_ValueError, "the TSC cannot stand still"), NULL;
    c->tsc_khz = khz;
    put(&c->tsc_source, source == Py_None ? NULL : Py_NewRef(source));
    Py_RETURN_NONE;
}

static PyObject *cpu_set_a20(Cpu *c, PyObject *state)
{
    int on = PyObject_IsTrue(state);
    if (on < 0)
        return NULL;
    if (c->uc)
        U.set_a20(c->cs, on);
    Py_RETURN_NONE;
}

/* set_cpuid(array of struct kvm_cpuid_entry2) */
static PyObject *cpu_set_cpuid(Cpu *c, PyObject *entries)
{
    Py_ssize_t length = PyBytes_Check(entries) ? PyBytes_GET_SIZE(entries) : -1;
    if (length < 0 || length % sizeof(KvmCpuid))
        return PyErr_SetString(PyExc_ValueError, "need whole CPUID entries"), NULL;
    KvmCpuid *copy = PyMem_Malloc(length + 1);
    if (!copy)
        return PyErr_NoMemory();
    memcpy(copy, PyBytes_AS_STRING(entries), length);
    PyMem_Free(c->cpuid);
    c->cpuid = copy;
    c->cpuid_count = length / sizeof *copy;
    Py_RETURN_NONE;
}

/* --- life and death ------------------------------------------------------------------------------------------ */

/* Whether unicorn_abi.h agrees with what the library does. Nothing of ours is hooked in yet. */
static bool registers_agree(Cpu *c)
{
    static const uint64_t pattern = UINT64_C(0x123456789abcdef0);
    uint64_t value = 0;
    bool good = U.uc_reg_write(c->uc, UC_X86_REG_RIP, &pattern) == 0 && U64(c->env, ENV_EIP) == pattern;
    U64(c->env, ENV_CR + 16) = pattern + 1;
    good = good && U.uc_reg_read(c->uc, UC_X86_REG_CR2, &value) == 0 && value == pattern + 1;
    good = good && (char *)c->icount_high == c->env + ENV_ICOUNT_DECR + 2;
    good = good && PTR(PTR(c->cs, CS_CLASS), CLASS_TLB_FILL) == (void *)(uintptr_t)U.tlb_fill;
    good = good && PTR(PTR(c->cs, CS_CLASS), CLASS_DEBUG_EXCP_HANDLER) == (void *)(uintptr_t)U.breakpoint_handler;
    good = good && !PTR(c->cs, CS_BREAKPOINTS) && PTR(c->cs, CS_BREAKPOINTS + 8) == c->cs + CS_BREAKPOINTS;
    good = good && U32(c->uc, UC_V_L1_SIZE) == 1024 && U32(c->uc, UC_V_L1_SHIFT) == 30;
    good = good && U32(c->uc, UC_V_L2_LEVELS) == 2;
    U.cpu_reset(c->cs);
    good = good && U64(c->env, ENV_EIP) == 0xfff0 && SEG(c, CS)->base == 0xffff0000 && HFLAGS(c) == HF_ADDSEG;
    return good && I32(c->env, ENV_OLD_EXCEPTION) == -1 && U64(c->env, ENV_DR + 56) == 0x400;
}

/* Whether a block of two instructions of one byte each is what was translated for an address. */
static bool block_agrees(Cpu *c, uint64_t pc)
{
    const char *block = translated_block(c, pc);
    if (!block || U64(block, TB_PC) != pc || U16(block, TB_ICOUNT) != 2 || U32(block, TB_CFLAGS) & CF_COUNT_MASK)
        return false;
    const uint8_t *table = instruction_table(block);
    return next_instruction(&table) == 0 && next_instruction(&table) == 1;
}

/* The same by executing a jump, a NOP and a HLT at the reset vector: TLB, translations, states of the CPU. (Unicorn tells
 * of translations only after the first block that came to its end.) */
static bool execution_agrees(Cpu *c)
{
    enum { VECTOR_PAGE = 0xfffff000, VECTOR = 0xff0 };
    static const uint8_t code[] = {0xeb, 0x00, 0x90, 0xf4};
    static _Alignas(PAGE) uint8_t page[PAGE];
    memcpy(page + VECTOR, code, sizeof code);
    if (U.uc_mem_map_ptr(c->uc, VECTOR_PAGE, PAGE, UC_PROT_READ | UC_PROT_EXEC, page))
        return false;
    bool good = U.uc_emu_start(c->uc, U64(c->env, ENV_EIP), 0, 0, 0) == 0 && U32(c->cs, CS_HALTED) == 1;
    good = good && U64(c->env, ENV_EIP) == 0xfff4;
    good = good && host_address(c, VECTOR_PAGE + VECTOR, MMU_FETCH) == page + VECTOR;
    good = good && has_code(c, U.ram_addr_from_host(c->uc, page));
    good = good && block_agrees(c, VECTOR_PAGE + VECTOR + 2);
    U.tb_flush(c->cs);
    good = good && !has_code(c, U.ram_addr_from_host(c->uc, page));
    return U.uc_mem_unmap(c->uc, VECTOR_PAGE, PAGE) == 0 && good;
}

static int add_hooks(Cpu *c)
{
    static const struct { int type, instruction; void *function; } hooks[] = {
        {UC_HOOK_INSN, INS_IN, on_in}, /* the first to be found by Unicorn's search */
        {UC_HOOK_INSN, INS_OUT, on_out},
        {UC_HOOK_INSN, INS_SYSCALL, on_syscall},
        {UC_HOOK_INSN, INS_SYSENTER, on_sysenter},
        {UC_HOOK_INSN, INS_CPUID, on_cpuid},
        {UC_HOOK_INSN, INS_RDTSC, on_rdtsc},
        {UC_HOOK_INSN, INS_RDTSCP, on_rdtscp},
        {UC_HOOK_INTR, 0, on_exception},
        {UC_HOOK_INSN_INVALID, 0, on_invalid_instruction},
        {UC_HOOK_MEM_WRITE_PROT, 0, on_rom_write},
        {UC_HOOK_EDGE_GENERATED, 0, on_translation},
    };
    const uint64_t everywhere[] = {1, 0}; /* begin > end */
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        size_t handle;
        int error = U.uc_hook_add(c->uc, &handle, hooks[i].type, hooks[i].function, c, everywhere[0], everywhere[1],
                                  hooks[i].instruction);
        if (error)
            return unicorn_failed("cannot add a hook", error), -1;
    }
    return 0;
}

static int open_unicorn(Cpu *c, int model, uint32_t code_buffer)
{
    int error = U.uc_open(UC_ARCH_X86, UC_MODE_64, &c->uc);
    if (error)
        return unicorn_failed("cannot open", error), -1;
    uint64_t rip;
    if ((error = U.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), model)) ||
        (error = U.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), code_buffer)) ||
        (error = U.uc_ctl(c->uc, UC_CTL_WRITE(UC_CTL_USE_EXITS, 1), 1)) || /* or address 0 would act as HLT */
        (error = U.uc_reg_read(c->uc, UC_X86_REG_RIP, &rip)))             /* makes it initialize itself */
        return unicorn_failed("cannot initialize", error), -1;
    c->cs = PTR(c->uc, UC_CPU);
    c->env = c->cs + CS_ENV;
    c->icount_high = (uint16_t *)PTR(c->cs, CS_ICOUNT_DECR_PTR) + 1;
    if (PTR(c->cs, CS_ENV_PTR) != c->env || !registers_agree(c) || !execution_agrees(c))
        return PyErr_SetString(EngineError, "this build of unicorn has another layout; need the 2.1.4 wheel"), -1;
    U8(c->uc, UC_NO_EXIT_REQUEST) = 1; /* else exits happen inside instructions, which then run twice */
    if (add_hooks(c))
        return -1;
    PTR(PTR(c->cs, CS_CLASS), CLASS_CPU_EXEC_INTERRUPT) = (void *)(uintptr_t)on_boundary;
    PTR(PTR(c->cs, CS_CLASS), CLASS_TLB_FILL) = (void *)(uintptr_t)on_tlb_fill;
    PTR(PTR(c->cs, CS_CLASS), CLASS_DEBUG_EXCP_HANDLER) = (void *)(uintptr_t)on_breakpoint;
    return 0;
}

static PyObject *cpu_close(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (c->running)
        return require_stopped(c), NULL;
    if (c->thread_started) {
        pthread_mutex_lock(&c->lock);
        c->quit = true;
        pthread_cond_signal(&c->wake_up);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
        c->thread_started = false;
    }
    if (c->uc)
        U.uc_close(c->uc);
    c->uc = NULL;
    for (Slot *slot = c->slots; slot < c->slots + MAX_SLOTS; slot++)
        if (slot->used)
            release_slot(slot);
    PyMem_Free(c->cpuid);
    c->cpuid = NULL;
    c->cpuid_count = 0;
    Py_RETURN_NONE;
}

/* Every reference that the object holds, for the garbage collector. */
static int for_references(Cpu *c, int (*visit)(PyObject **place, void *argument), void *argument)
{
    PyObject **places[] = {
        &c->read_block, &c->write_block, &c->failed, &c->io_bus_write, &c->bus_read, &c->bus_write, &c->source,
        &c->acknowledge, &c->tsc_source, &c->error[0], &c->error[1], &c->error[2],
    };
    int result = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places && !result; i++)
        result = visit(places[i], argument);
    for (int i = 0; i < 6 && !result; i++)
        result = visit(&c->tables[i / 3][i % 3], argument);
    return result;
}

typedef struct { visitproc visit; void *arg; } Visitor;

static int visit_reference(PyObject **place, void *argument)
{
    Visitor *visitor = argument;
    return *place ? visitor->visit(*place, visitor->arg) : 0;
}

static int clear_reference(PyObject **place, void *Py_UNUSED(argument))
{
    Py_CLEAR(*place);
    return 0;
}

static int cpu_traverse(Cpu *c, visitproc visit, void *arg)
{
    return for_references(c, visit_reference, &(Visitor){visit, arg});
}

static int cpu_clear(Cpu *c)
{
    return for_references(c, clear_reference, NULL);
}

static void cpu_dealloc(Cpu *c)
{
    PyObject_GC_UnTrack(c);
    Py_XDECREF(cpu_close(c, NULL));
    cpu_clear(c);
    if (c->run_view.obj)
        PyBuffer_Release(&c->run_view);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake_up);
    Py_TYPE(c)->tp_free((PyObject *)c);
}

/* Cpu(run, model, code_buffer): run is a writable buffer for struct kvm_run and its data pages. */
static PyObject *cpu_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"run", "model", "code_buffer", NULL};
    PyObject *run;
    int model;
    unsigned code_buffer;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OiI", names, &run, &model, &code_buffer))
        return NULL;
    if (!library)
        return PyErr_SetString(EngineError, "load() first"), NULL;
    Cpu *c = (Cpu *)type->tp_alloc(type, 0);
    if (!c)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake_up, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&c->lock, NULL);
    atomic_store(&c->alarm, NEVER);
    atomic_store(&c->wake, NEVER);
    c->tsc_khz = 1000000;
    PyObject *done = NULL;
    if (PyObject_GetBuffer(run, &c->run_view, PyBUF_WRITABLE) == 0) {
        c->run = c->run_view.buf;
        if (c->run_view.len < RUN_SIZE)
            PyErr_SetString(PyExc_ValueError, "the buffer for struct kvm_run is too small");
        else if (open_unicorn(c, model, code_buffer) == 0)
            done = cpu_reset_state(c, NULL);
    }
    if (!done) {
        Py_DECREF(c);
        return NULL;
    }
    Py_DECREF(done);
    return (PyObject *)c;
}

static PyMethodDef cpu_methods[] = {
    {"run", (PyCFunction)cpu_run, METH_NOARGS, NULL},
    {"kick", (PyCFunction)cpu_kick, METH_NOARGS, NULL},
    {"set_alarm", (PyCFunction)cpu_set_alarm, METH_O, NULL},
    {"interrupt_changed", (PyCFunction)cpu_interrupt_changed, METH_NOARGS, NULL},
    {"interrupt", (PyCFunction)cpu_interrupt, METH_O, NULL},
    {"inject_exception", (PyCFunction)cpu_inject_exception, METH_VARARGS, NULL},
    {"eflags", (PyCFunction)cpu_eflags, METH_NOARGS, NULL},
    {"read_state", (PyCFunction)cpu_read_state, METH_VARARGS, NULL},
    {"write_state", (PyCFunction)cpu_write_state, METH_VARARGS, NULL},
    {"flush", (PyCFunction)cpu_flush, METH_O, NULL},
    {"reset", (PyCFunction)cpu_reset_state, METH_NOARGS, NULL},
    {"save_state", (PyCFunction)cpu_save_state, METH_NOARGS, NULL},
    {"restore_state", (PyCFunction)cpu_restore_state, METH_O, NULL},
    {"map_memory", (PyCFunction)cpu_map_memory, METH_VARARGS, NULL},
    {"map_hole", (PyCFunction)cpu_map_hole, METH_VARARGS, NULL},
    {"unmap", (PyCFunction)cpu_unmap, METH_VARARGS, NULL},
    {"memory_written", (PyCFunction)(void (*)(void))cpu_memory_written, METH_FASTCALL, NULL},
    {"serve_ports", (PyCFunction)cpu_serve_ports, METH_O, NULL},
    {"serve_memory", (PyCFunction)cpu_serve_memory, METH_O, NULL},
    {"set_io_bus", (PyCFunction)cpu_set_io_bus, METH_VARARGS, NULL},
    {"set_interrupt_source", (PyCFunction)cpu_set_interrupt_source, METH_O, NULL},
    {"interrupted", (PyCFunction)cpu_interrupted, METH_NOARGS, NULL},
    {"set_tsc", (PyCFunction)cpu_set_tsc, METH_VARARGS, NULL},
    {"set_a20", (PyCFunction)cpu_set_a20, METH_O, NULL},
    {"set_cpuid", (PyCFunction)cpu_set_cpuid, METH_O, NULL},
    {"close", (PyCFunction)cpu_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cpu_members[] = {
    {"queued_vector", T_INT, offsetof(Cpu, queued_vector), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject cpu_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "portvisor.kvm.software._softcpu.Cpu",
    .tp_basicsize = sizeof(Cpu),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = cpu_new,
    .tp_dealloc = (destructor)cpu_dealloc,
    .tp_traverse = (traverseproc)cpu_traverse,
    .tp_clear = (inquiry)cpu_clear,
    .tp_methods = cpu_methods,
    .tp_members = cpu_members,
};

/* load(path, error_class): resolve the unicorn library, whose version was checked. Raises OSError. */
static PyObject *load(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *path;
    PyObject *error_class;
    if (!PyArg_ParseTuple(arguments, "sO", &path, &error_class))
        return NULL;
    put(&EngineError, Py_NewRef(error_class));
    if (!library) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle)
            return PyErr_SetString(PyExc_OSError, dlerror()), NULL;
#define RESOLVE(result, name, symbol, arguments) \
    { \
        void *address = dlsym(handle, #symbol); \
        if (!address) { \
            dlclose(handle); \
            return PyErr_SetString(PyExc_OSError, "it does not export " #symbol), NULL; \
        } \
        memcpy(&U.name, &address, sizeof address); \
    }
        UNICORN_FUNCTIONS(RESOLVE)
        library = handle;
    }
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {{"load", load, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_softcpu",
    .m_doc = "Unicorn 2.1.4 as the processor of a PC.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__softcpu(void)
{
    static const int sizes[] = {1, 2, 4, 8};
    for (int i = 0; i < 4; i++)
        size_object[sizes[i]] = PyLong_FromLong(sizes[i]);
    name_pending = PyUnicode_InternFromString("pending");
    PyObject *module = PyType_Ready(&cpu_type) ? NULL : PyModule_Create(&module_definition);
    if (module && PyModule_AddObjectRef(module, "Cpu", (PyObject *)&cpu_type)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
