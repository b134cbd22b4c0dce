/* The recorder: packed records in blocks of memory, filled by the thread that runs the guest and emptied by a writer.
 * Part of tap.c.
 *
 * The guest's thread never formats and never writes: it appends 40 bytes, and hands a full block over. The writer
 * turns a block into columns without the interpreter lock (batch.h).
 */
#ifndef PORTVISOR_TRACE_RECORDER_H
#define PORTVISOR_TRACE_RECORDER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>
#include <sys/mman.h>

#include "interrupt.h"
#include "stamps.h"

enum { KIND_IN, KIND_OUT, KIND_INS, KIND_OUTS, KIND_MMIO_IN = 11, KIND_MMIO_OUT };
enum { FLAG_FAILED = 1, FLAG_UNASSIGNED = 2, FLAG_SPLIT = 4, FLAG_RIP = 8, ROUTE_SHIFT = 4 };
enum { ROUTE_COALESCED = 3 }; /* kvm.api.Route */
enum { NS_PER_S = 1000000000, CALIBRATION_NS = 2000000, SYNC_NS = 100000 };
enum { MAX_BLOCKS = 4, MAX_BLOB_BYTES = 16 << 20, MAX_TIMED_DEPTH = 16 };

typedef struct {
    int64_t time;
    uint64_t rip;
    uint32_t value, ticks; /* ticks: how long the handler took */
    uint32_t data;         /* number of the blob in the block, from 1; 0: none */
    uint16_t port, device, reg;
    uint8_t size, kind, depth, flags;
} Row;

typedef struct Block {
    struct Block *next;
    Row *rows;
    Py_ssize_t count;
    int64_t first; /* number of its first record */
    PyObject *blobs;
    size_t blob_bytes;
} Block;

typedef struct {
    PyObject_HEAD
    Row *at, *end; /* where the next record goes */
    Block *block;
    const uint64_t *rip;
    const uint8_t *route;
    uint8_t flags; /* of every record */
    bool is_held, switching;
    int depth;
    uint64_t begun[MAX_TIMED_DEPTH]; /* ticks at enter() of the events that are under way */
    int64_t held, start, sync_ns, last;
    uint64_t sync_ticks, sync_limit;
    double ns_per_tick;
    uint64_t ns_scale; /* ns a tick, 32.32 */
    PyObject *source, *registers;
    Py_buffer rip_view, route_view;
    Py_ssize_t capacity;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    Block *ready, **ready_end, *unused, *busy;
    int blocks, handed, written;
    bool consumed, closing;
} Recorder;

/* --- time ---------------------------------------------------------------------------------------------------- */

static int64_t sample(Recorder *r)
{
    if (!r->source) {
        r->sync_ticks = ticks();
        return r->sync_ns = monotonic() - r->start;
    }
    PyObject *result = PyObject_CallNoArgs(r->source);
    int64_t now = result ? PyLong_AsLongLong(result) : 0;
    Py_XDECREF(result);
    if (PyErr_Occurred()) {
        drop_error(r->source);
        now = 0;
    }
    return now;
}

/* The time of an event whose device did not ask: from the stamp at its end, as long as a real one is fresh. */
static inline int64_t time_at(Recorder *r, uint64_t stamp)
{
    if (r->source || !stamp)
        return sample(r);
    uint64_t passed = stamp - r->sync_ticks;
    int64_t now = passed < r->sync_limit ? r->sync_ns + (int64_t)(passed * r->ns_scale >> 32) : sample(r);
    return now > r->last ? now : r->last;
}

/* How many ns a tick is: measured once, by waiting a moment. */
static double tick_length(void)
{
    static double length;
    if (length > 0)
        return length;
    int64_t begin = monotonic(), end;
    uint64_t tick = ticks();
    do
        end = monotonic();
    while (end - begin < CALIBRATION_NS);
    uint64_t passed = ticks() - tick;
    return length = passed ? (double)(end - begin) / passed : 1.0;
}

static void calibrate(Recorder *r)
{
    r->ns_per_tick = tick_length();
    r->ns_scale = r->ns_per_tick * (UINT64_C(1) << 32);
    r->sync_limit = SYNC_NS / r->ns_per_tick;
}

/* --- blocks -------------------------------------------------------------------------------------------------- */

static size_t rows_size(Recorder *r)
{
    return r->capacity * sizeof(Row);
}

static void free_block(Recorder *r, Block *block)
{
    Py_XDECREF(block->blobs);
    munmap(block->rows, rows_size(r));
    PyMem_Free(block);
}

/* NULL without an exception if there is no memory for one. */
static Block *new_block(Recorder *r)
{
    Block *block = PyMem_Calloc(1, sizeof *block);
    if (!block)
        return NULL;
    block->rows = mmap(NULL, rows_size(r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block->rows == MAP_FAILED) {
        PyMem_Free(block);
        return NULL;
    }
    madvise(block->rows, rows_size(r), MADV_HUGEPAGE); /* fewer page faults, if the host allows it */
    r->blocks++;
    return block;
}

static void use_block(Recorder *r, Block *block, int64_t first)
{
    block->next = NULL;
    block->first = first;
    block->count = 0;
    block->blob_bytes = 0;
    r->block = block;
    r->at = block->rows;
    r->end = block->rows + r->capacity;
}

/* A block to go on with; waits for the writer if it is far behind, which no record is worth losing for. */
static Block *next_block(Recorder *r)
{
    pthread_mutex_lock(&r->lock);
    Block *block = r->unused;
    if (!block && r->blocks < MAX_BLOCKS && (block = new_block(r))) {
        pthread_mutex_unlock(&r->lock);
        return block;
    }
    if (!block) {
        r->switching = true;
        Py_BEGIN_ALLOW_THREADS
        while (!r->unused)
            pthread_cond_wait(&r->changed, &r->lock);
        pthread_mutex_unlock(&r->lock); /* the writer needs it, maybe to give the interpreter lock */
        Py_END_ALLOW_THREADS
        pthread_mutex_lock(&r->lock);
        r->switching = false;
        block = r->unused;
    }
    r->unused = block->next;
    pthread_mutex_unlock(&r->lock);
    return block;
}

/* Give the records so far to the writer. Without a writer they are dropped. */
static void hand_over(Recorder *r)
{
    Block *block = r->block;
    if (r->switching || r->at == block->rows)
        return;
    block->count = r->at - block->rows;
    if (!r->consumed) {
        Py_CLEAR(block->blobs);
        use_block(r, block, block->first + block->count);
        return;
    }
    r->at = r->end; /* nothing more goes into this one */
    int64_t next = block->first + block->count;
    block->next = NULL;
    pthread_mutex_lock(&r->lock);
    *r->ready_end = block;
    r->ready_end = &block->next;
    r->handed++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    use_block(r, next_block(r), next);
}

/* --- records ------------------------------------------------------------------------------------------------- */

/* The time of an event. May run Python code, and so the writer, which may change the block: not to be called between
 * steps that concern one block. */
static inline int64_t event_time(Recorder *r, uint64_t stamp)
{
    return r->last = r->is_held ? r->held : time_at(r, stamp);
}

/* row has all but RIP, depth and route. Field by field: a copy would wait for the stores that made the original. */
static inline void append(Recorder *r, const Row row)
{
    Row *at = r->at;
    if (at == r->end)
        return; /* only while a block is being changed, by a thread that has no business here */
    at->time = row.time;
    at->rip = *r->rip;
    at->value = row.value;
    at->ticks = row.ticks;
    at->data = row.data;
    at->port = row.port;
    at->device = row.device;
    at->reg = row.reg;
    at->size = row.size;
    at->kind = row.kind;
    at->depth = r->depth;
    at->flags = row.flags | r->flags | *r->route << ROUTE_SHIFT;
    r->at = at + 1;
    if (r->at == r->end || r->block->blob_bytes > MAX_BLOB_BYTES)
        hand_over(r);
}

static void leave(Recorder *r)
{
    if (r->depth > 0)
        r->depth--;
}

static uint16_t register_number(Recorder *r, PyObject *name)
{
    PyObject *known = PyDict_GetItemWithError(r->registers, name);
    if (known)
        return (uint16_t)PyLong_AsLong(known);
    Py_ssize_t next = PyDict_GET_SIZE(r->registers);
    if (PyErr_Occurred() || next > INT16_MAX)
        return 0;
    PyObject *number = PyLong_FromSsize_t(next);
    if (number)
        PyDict_SetItem(r->registers, name, number);
    Py_XDECREF(number);
    return (uint16_t)next;
}

/* Keep a blob with the present block; its number there, 0 if there is no memory. */
static uint32_t keep_blob(Recorder *r, PyObject *data)
{
    PyObject *list = r->block->blobs ? NULL : PyList_New(0); /* may collect garbage, see event_time */
    Block *block = r->block;
    if (block->blobs)
        Py_XDECREF(list);
    else
        block->blobs = list;
    if (!block->blobs || PyList_Append(block->blobs, data) < 0)
        return 0;
    block->blob_bytes += PyBytes_GET_SIZE(data);
    return PyList_GET_SIZE(block->blobs);
}

/* (kind, port, size, value, device, register, data or None, flags) becomes a record. begin: ticks; 0: takes no time. */
static bool append_parsed(Recorder *r, PyObject *args, uint64_t begin)
{
    unsigned kind, port, size, device, reg, flags = 0;
    unsigned long value;
    PyObject *data;
    Row row = {0};
    if (!PyArg_ParseTuple(args, "IIIkIIO|I", &kind, &port, &size, &value, &device, &reg, &data, &flags))
        return false;
    if (data != Py_None && !PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "data: bytes or None");
        return false;
    }
    row.kind = kind;
    row.port = port;
    row.size = size;
    row.device = device;
    row.reg = reg;
    row.value = (uint32_t)value;
    row.flags = flags;
    uint64_t end = begin ? ticks() : 0, taken = end - begin;
    row.ticks = taken < UINT32_MAX ? taken : UINT32_MAX;
    row.time = event_time(r, end);
    if (data != Py_None && !(row.data = keep_blob(r, data)))
        return false;
    append(r, row);
    return true;
}

/* --- life ---------------------------------------------------------------------------------------------------- */

static const uint64_t no_rip;
static const uint8_t no_route;

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_ssize_t capacity;
    if (!PyArg_ParseTuple(args, "n", &capacity))
        return NULL;
    if (capacity < 1 || capacity > (1 << 24)) {
        PyErr_SetString(PyExc_ValueError, "capacity: 1 to 2**24 records");
        return NULL;
    }
    Recorder *r = (Recorder *)type->tp_alloc(type, 0);
    if (!r)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&r->lock, NULL);
    r->capacity = capacity;
    r->ready_end = &r->ready;
    r->rip = &no_rip;
    r->route = &no_route;
    r->registers = PyDict_New();
    Block *first = new_block(r);
    if (!r->registers || !first) {
        Py_DECREF(r);
        return PyErr_NoMemory();
    }
    use_block(r, first, 0);
    calibrate(r);
    r->is_held = true; /* at 0, until a source is set */
    return (PyObject *)r;
}

static int recorder_traverse(Recorder *r, visitproc visit, void *arg)
{
    Py_VISIT(r->source);
    Py_VISIT(r->registers);
    return 0;
}

static int recorder_clear(Recorder *r)
{
    Py_CLEAR(r->source);
    Py_CLEAR(r->registers);
    return 0;
}

static void forget_cpu(Recorder *r)
{
    r->rip = &no_rip;
    r->route = &no_route;
    r->flags = 0;
    PyBuffer_Release(&r->rip_view);
    PyBuffer_Release(&r->route_view);
}

static void free_blocks(Recorder *r, Block *block)
{
    while (block) {
        Block *next = block->next;
        free_block(r, block);
        block = next;
    }
}

static void recorder_dealloc(Recorder *r)
{
    PyObject_GC_UnTrack(r);
    recorder_clear(r);
    forget_cpu(r);
    free_blocks(r, r->ready);
    free_blocks(r, r->unused);
    free_blocks(r, r->busy);
    free_blocks(r, r->block);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    Py_TYPE(r)->tp_free(r);
}

/* --- methods ------------------------------------------------------------------------------------------------- */

static PyObject *recorder_now(Recorder *r, PyObject *Py_UNUSED(unused))
{
    if (r->is_held)
        return PyLong_FromLongLong(r->held);
    int64_t now = sample(r);
    if (r->depth) {
        r->held = now;
        r->is_held = true;
    }
    return PyLong_FromLongLong(now);
}

static PyObject *recorder_set_source(Recorder *r, PyObject *source)
{
    if (PyLong_Check(source)) {
        r->start = PyLong_AsLongLong(source);
        Py_CLEAR(r->source);
        r->last = sample(r); /* a snapshot put back lies before what was noted last */
    } else {
        Py_XSETREF(r->source, Py_NewRef(source));
    }
    if (PyErr_Occurred())
        return NULL;
    r->is_held = false;
    Py_RETURN_NONE;
}

/* set_cpu(rip, route): where a vCPU keeps them; None for what is not known. */
static PyObject *recorder_set_cpu(Recorder *r, PyObject *args)
{
    PyObject *rip, *route;
    if (!PyArg_ParseTuple(args, "OO", &rip, &route))
        return NULL;
    forget_cpu(r);
    if ((rip != Py_None && PyObject_GetBuffer(rip, &r->rip_view, PyBUF_SIMPLE)) ||
        (route != Py_None && PyObject_GetBuffer(route, &r->route_view, PyBUF_SIMPLE)))
        return forget_cpu(r), NULL;
    if ((r->rip_view.obj && r->rip_view.len != 8) || (r->route_view.obj && r->route_view.len != 1)) {
        forget_cpu(r);
        PyErr_SetString(PyExc_ValueError, "need 8 bytes of RIP and one of the route");
        return NULL;
    }
    if (r->rip_view.obj) {
        r->rip = r->rip_view.buf;
        r->flags = FLAG_RIP;
    }
    if (r->route_view.obj)
        r->route = r->route_view.buf;
    Py_RETURN_NONE;
}

static PyObject *recorder_enter(Recorder *r, PyObject *Py_UNUSED(unused))
{
    if (r->depth < MAX_TIMED_DEPTH)
        r->begun[r->depth] = ticks();
    r->depth++;
    Py_RETURN_NONE;
}

static PyObject *recorder_leave(Recorder *r, PyObject *args)
{
    leave(r);
    bool ok = append_parsed(r, args, r->depth < MAX_TIMED_DEPTH ? r->begun[r->depth] : 0);
    if (r->depth == 0)
        r->is_held = false;
    if (!ok)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *recorder_abandon(Recorder *r, PyObject *Py_UNUSED(unused))
{
    leave(r);
    if (r->depth == 0)
        r->is_held = false;
    Py_RETURN_NONE;
}

static PyObject *recorder_event(Recorder *r, PyObject *args)
{
    if (!append_parsed(r, args, 0))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *recorder_register(Recorder *r, PyObject *name)
{
    uint16_t number = register_number(r, name);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(number);
}

/* Let the writer have what waits, and wait until it has written it. */
static PyObject *recorder_flush(Recorder *r, PyObject *Py_UNUSED(unused))
{
    hand_over(r);
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&r->lock);
    int wanted = r->handed;
    while (r->consumed && r->written - wanted < 0)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* A writer is about to call next(). */
static PyObject *recorder_open(Recorder *r, PyObject *Py_UNUSED(unused))
{
    r->consumed = true;
    r->closing = false;
    Py_RETURN_NONE;
}

/* What waits is the last: next() gives it, and then None. */
static PyObject *recorder_close(Recorder *r, PyObject *Py_UNUSED(unused))
{
    hand_over(r);
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    Py_RETURN_NONE;
}

/* The writer is done with the batch that next() gave. */
static void finish_busy(Recorder *r)
{
    Block *block = r->busy;
    if (!block)
        return;
    r->busy = NULL;
    Py_CLEAR(block->blobs);
    pthread_mutex_lock(&r->lock);
    block->next = r->unused;
    r->unused = block;
    r->written++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* Without the interpreter lock: the next block, NULL at the deadline or the end. */
static Block *await_block(Recorder *r, int64_t deadline)
{
    struct timespec at = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
    int error = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->ready && !r->closing && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&r->changed, &r->lock, &at);
    Block *block = r->ready;
    if (block && !(r->ready = block->next))
        r->ready_end = &r->ready;
    pthread_mutex_unlock(&r->lock);
    if (block)
        block->next = NULL;
    return block;
}

#endif
