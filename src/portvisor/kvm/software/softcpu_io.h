/* Port and memory-mapped I/O. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_IO_H
#define PORTVISOR_SOFTCPU_IO_H

#include "softcpu_decode.h"

/* --- ports --------------------------------------------------------------------------------------------------- */

static PyObject *call(PyObject *function, PyObject *a, PyObject *b, PyObject *third)
{
    PyObject *arguments[] = {NULL, a, b, third};
    return PyObject_Vectorcall(function, arguments + 1, (third ? 3 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* The Python exception that is set goes to tables.failed; what that raises, and what is no Exception, to run(). */
static uint32_t port_failed(Cpu *c, uint32_t port, int size, bool write)
{
    PyObject *type, *value, *traceback, *result = NULL;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        keep_error(c);
        return ones(size);
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    result = PyObject_CallFunction(c->failed, "IiOO", port, size, write ? Py_True : Py_False, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    uint32_t answer = result && PyLong_Check(result) ? PyLong_AsUnsignedLongMask(result) & ones(size) : ones(size);
    Py_XDECREF(result);
    if (PyErr_Occurred())
        keep_error(c);
    return answer;
}

/* The table's (function, offset); a new reference, as the handler may remap its own port. */
static PyObject *port_entry(PyObject *table, uint32_t port)
{
    PyObject *entry = (Py_ssize_t)port < PyList_GET_SIZE(table) ? PyList_GET_ITEM(table, port) : NULL;
    if (!entry || !PyTuple_CheckExact(entry) || PyTuple_GET_SIZE(entry) != 2) {
        PyErr_Format(PyExc_TypeError, "port table has no (function, offset) for port 0x%x", port);
        return NULL;
    }
    return Py_NewRef(entry);
}

static uint32_t port_read(Cpu *c, uint32_t port, int size)
{
    PyObject *result = NULL, *entry = port_entry(c->tables[0][size >> 1], port);
    if (entry) {
        result = call(PyTuple_GET_ITEM(entry, 0), PyTuple_GET_ITEM(entry, 1), size_object[size], NULL);
        Py_DECREF(entry);
    }
    if (result) {
        unsigned long value = PyLong_AsUnsignedLongMask(result);
        Py_DECREF(result);
        if (value != (unsigned long)-1 || !PyErr_Occurred())
            return value & ones(size);
    }
    return port_failed(c, port, size, false);
}

static void port_write(Cpu *c, uint32_t port, int size, uint32_t value)
{
    PyObject *result = NULL, *number = PyLong_FromUnsignedLong(value);
    PyObject *entry = number ? port_entry(c->tables[1][size >> 1], port) : NULL;
    if (entry) {
        result = call(PyTuple_GET_ITEM(entry, 0), PyTuple_GET_ITEM(entry, 1), size_object[size], number);
        Py_DECREF(entry);
    }
    Py_XDECREF(number);
    if (result)
        Py_DECREF(result);
    else
        port_failed(c, port, size, true);
}

static uint64_t address_mask(int bits)
{
    return bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

static void add_to_register(Cpu *c, int number, int bits, uint64_t amount)
{
    uint64_t value = REG(c, number) + amount;
    if (bits == 16)
        value = (REG(c, number) & ~UINT64_C(0xffff)) | (value & 0xffff);
    REG(c, number) = bits == 32 ? (uint32_t)value : value;
}

/* Whether a segment lets the access pass; only limits are left to look at. */
static bool may_access(Cpu *c, int segment, int access)
{
    uint32_t flags = SEG(c, segment)->flags;
    if (HFLAGS(c) & HF_CS64)
        return true;
    if (!(flags & DESC_P))
        return false;
    if (flags & DESC_CODE)
        return access == MMU_LOAD && (flags & DESC_RW);
    return !(flags & DESC_EXPAND_DOWN) && (access == MMU_LOAD || (flags & DESC_RW));
}

/* The elements of an INS or OUTS that can be moved at once: they lie in one page and segment, go upwards, and
 * nothing is to happen between them. host is NULL if even one element is beyond what Unicorn does exactly. */
typedef struct {
    uint64_t count;
    uint8_t *host;
    Slot *slot;
    bool device; /* the element lies in no memory */
} Block;

static Block find_block(Cpu *c, const Instruction *insn, int size, int segment, int pointer, int access)
{
    Block block = {.count = 1};
    bool code64 = HFLAGS(c) & HF_CS64, user = (HFLAGS(c) & HF_CPL) == 3;
    if (!may_access(c, segment, access) || ((EFLAGS(c) & FL_AC) && user) || (HFLAGS(c) & HF_IOBPT))
        return block;
    uint64_t mask = address_mask(insn->address_bits), offset = REG(c, pointer) & mask;
    uint64_t address = offset + (code64 && segment < FS ? 0 : SEG(c, segment)->base);
    if (!code64)
        address = (uint32_t)address;
    uint64_t room = (PAGE - (address & 0xfff)) / size;
    if (!code64) {
        uint64_t limit = SEG(c, segment)->limit & mask, fit = offset > limit ? 0 : (limit - offset + 1) / size;
        room = fit < room ? fit : room;
    }
    uint8_t *host = room ? host_address(c, address, access) : NULL;
    block.slot = host ? slot_of_host(c, host) : NULL;
    block.device = room && !host && translate(c, address, access);
    if (!block.slot)
        return block;
    block.host = host;
    bool own_code = access == MMU_STORE && PAGE_OF(address) == PAGE_OF(linear_rip(c)); /* a translation that runs */
    if (insn->rep && I32(c->env, ENV_DF) == 1 && !(EFLAGS(c) & FL_TF) && !own_code) {
        uint64_t count = REG(c, RCX) & mask;
        block.count = count < room ? count : room;
    }
    return block;
}

/* All but the first element of a block are stored here, the first one, which is returned, by the instruction. */
static uint32_t store_block(Cpu *c, int size, const Instruction *insn, const Block *block, const char *data)
{
    uint32_t first = 0;
    uint64_t length = block->count * size;
    memcpy(&first, data, size);
    memcpy(block->host + size, data + size, length - size);
    drop_translations(c, block->slot, block->host, length);
    add_to_register(c, RDI, insn->address_bits, length - size);
    add_to_register(c, RCX, insn->address_bits, 1 - block->count);
    return first;
}

static uint32_t read_block(Cpu *c, uint32_t port, int size, const Instruction *insn, const Block *block)
{
    PyObject *port_number = PyLong_FromUnsignedLong(port), *number = PyLong_FromUnsignedLongLong(block->count);
    PyObject *data = NULL;
    if (number && port_number)
        data = call(c->read_block, port_number, size_object[size], number);
    Py_XDECREF(number);
    Py_XDECREF(port_number);
    uint32_t first = ones(size);
    if (data && (!PyBytes_Check(data) || (uint64_t)PyBytes_GET_SIZE(data) != block->count * size))
        PyErr_SetString(PyExc_ValueError, "read_block did not give size * count bytes");
    if (PyErr_Occurred()) /* the registers stay at the first element */
        first = port_failed(c, port, size, false);
    else
        first = store_block(c, size, insn, block, PyBytes_AS_STRING(data));
    Py_XDECREF(data);
    return first;
}

/* Afterwards the registers are as if only the last element of the block remained. */
static void write_block(Cpu *c, uint32_t port, int size, const Instruction *insn, const Block *block)
{
    PyObject *data = PyBytes_FromStringAndSize((char *)block->host, block->count * size), *result = NULL;
    PyObject *port_number = PyLong_FromUnsignedLong(port);
    if (data && port_number)
        result = call(c->write_block, port_number, size_object[size], data);
    Py_XDECREF(data);
    Py_XDECREF(port_number);
    if (result)
        Py_DECREF(result);
    else
        port_failed(c, port, size, true);
    add_to_register(c, RSI, insn->address_bits, (block->count - 1) * size);
    add_to_register(c, RCX, insn->address_bits, 1 - block->count);
}

/* Ports that are served in front of everything else (ioeventfd, coalesced): true if it took the write. */
static bool io_bus_write(Cpu *c, uint32_t port, int size, uint32_t value)
{
    if (!(c->io_bus_ports[port / 8] >> port % 8 & 1) || !c->io_bus_write)
        return false;
    PyObject *result = PyObject_CallFunction(c->io_bus_write, "IiI", port, size, value);
    int taken = result ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    if (taken < 0)
        keep_error(c);
    return taken;
}

/* KVM_EXIT_IO with the guest at the instruction; run() completes it. */
static _Noreturn void leave_for_io(Cpu *c, int kind, uint32_t port, int size, uint32_t count, uint32_t value)
{
    uint8_t *io = c->run + RUN_UNION;
    io[0] = kind == PORT_WRITE;
    io[1] = size;
    U16(io, 2) = port;
    U32(io, 4) = count;
    U64(io, 8) = PIO_DATA;
    memset(c->run + PIO_DATA, 0, size * count);
    if (kind == PORT_WRITE)
        memcpy(c->run + PIO_DATA, &value, size);
    c->replay.elements = count;
    c->replay.answer_expected = keep_access(c, kind, port, size, 0);
    leave_at_instruction(c, EXIT_IO);
}


/* Where KVM has the registers of an exit: for a recorder, which has to know cheaply. */
static void show_rip(Cpu *c)
{
    U64(c->run, RUN_SYNC_RIP) = U64(c->env, ENV_EIP);
}

static uint32_t on_in(void *uc, uint32_t port, int size, void *user)
{
    Cpu *c = user;
    uint64_t answer;
    uint32_t value;
    (void)uc;
    show_rip(c);
    Instruction insn = decode(c, linear_rip(c));
    if (!insn.string)
        check_allowed(c, &insn, port, size);
    Block block = insn.string ? find_block(c, &insn, size, ES, RDI, MMU_STORE) : (Block){.count = 1};
    if (replayed(c, PORT_READ, port, size, &answer)) {
        if (block.count > c->replay.elements)
            block.count = c->replay.elements;
        return block.count > 1 ? store_block(c, size, &insn, &block, (char *)c->run + PIO_DATA) : answer;
    }
    if (c->error[0])
        leave_at_instruction(c, EXIT_INTR);
    if (!c->failed)
        leave_for_io(c, PORT_READ, port, size, block.count, 0);
    value = block.count > 1 ? read_block(c, port, size, &insn, &block) : port_read(c, port, size);
    if (block.count > 1 ? c->error[0] != NULL : due_now(c))
        stop_behind(c, PORT_READ, port, size, value);
    return value;
}

static void on_out(void *uc, uint32_t port, int size, uint32_t value, void *user)
{
    Cpu *c = user;
    uint64_t ignored;
    (void)uc;
    show_rip(c);
    Instruction insn = decode(c, linear_rip(c));
    if (!insn.string)
        check_allowed(c, &insn, port, size);
    if (replayed(c, PORT_WRITE, port, size, &ignored))
        return;
    if (c->error[0])
        leave_at_instruction(c, EXIT_INTR);
    Block block = insn.string ? find_block(c, &insn, size, insn.segment, RSI, MMU_LOAD) : (Block){.count = 1};
    if (!io_bus_write(c, port, size, value)) {
        if (!c->failed)
            leave_for_io(c, PORT_WRITE, port, size, 1, value);
        if (block.count > 1) {
            write_block(c, port, size, &insn, &block);
            return;
        }
        port_write(c, port, size, value);
    }
    if (due_now(c))
        stop_behind(c, PORT_WRITE, port, size, 0);
}

/* --- memory-mapped I/O --------------------------------------------------------------------------------------- */

/* KVM_EXIT_MMIO, unless the access comes from no instruction that could start over; then it returns. */
static void leave_for_mmio(Cpu *c, int kind, uint64_t address, unsigned size, uint64_t value)
{
    uint8_t *mmio = c->run + RUN_UNION;
    uintptr_t translated_pc = U64(c->cs, CS_MEM_IO_PC);
    if (!translated_pc || !U.cpu_restore_state(c->cs, translated_pc, true))
        return;
    if (!keep_access(c, kind, address, size, 0))
        return;
    c->replay.elements = 1;
    U64(mmio, 0) = address;
    memset(mmio + 8, 0, 8);
    if (kind == MEMORY_WRITE)
        memcpy(mmio + 8, &value, size);
    U32(mmio, 16) = size;
    mmio[20] = kind == MEMORY_WRITE;
    c->replay.answer_expected = true;
    leave_at_instruction(c, EXIT_MMIO);
}

static uint64_t on_mmio_read(void *uc, uint64_t offset, unsigned size, void *base)
{
    Cpu *c = current;
    uint64_t address = (uintptr_t)base + offset, value = UINT64_MAX;
    (void)uc;
    if (replayed(c, MEMORY_READ, address, size, &value))
        return value;
    if (!c->bus_read)
        leave_for_mmio(c, MEMORY_READ, address, size, 0);
    PyObject *number = c->bus_read && !c->error[0] ? PyLong_FromUnsignedLongLong(address) : NULL;
    PyObject *result = number ? call(c->bus_read, number, size_object[size], NULL) : NULL;
    Py_XDECREF(number);
    if (result) {
        value = PyLong_AsUnsignedLongLongMask(result);
        Py_DECREF(result);
    }
    if (PyErr_Occurred())
        keep_error(c);
    return value;
}

static void on_mmio_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *base)
{
    Cpu *c = current;
    uint64_t address = (uintptr_t)base + offset, ignored;
    (void)uc;
    if (size < 8)
        value &= (UINT64_C(1) << 8 * size) - 1;
    if (replayed(c, MEMORY_WRITE, address, size, &ignored))
        return;
    if (!c->bus_write)
        leave_for_mmio(c, MEMORY_WRITE, address, size, value);
    if (!c->bus_write || c->error[0])
        return;
    PyObject *number = PyLong_FromUnsignedLongLong(address), *data = PyLong_FromUnsignedLongLong(value);
    PyObject *result = number && data ? call(c->bus_write, number, size_object[size], data) : NULL;
    Py_XDECREF(number);
    Py_XDECREF(data);
    Py_XDECREF(result);
    if (PyErr_Occurred())
        keep_error(c);
}

/* A store to read-only memory goes to the bus, too; Unicorn drops it if this says that it was seen to. */
static bool on_rom_write(void *uc, int type, uint64_t address, int size, int64_t value, void *user)
{
    Cpu *c = user;
    (void)type;
    if (c->bus_write)
        on_mmio_write(uc, address, size, value, NULL);
    return true;
}

#endif
