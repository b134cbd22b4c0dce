/* A block of records as columns in Arrow's layout. Part of tap.c. */
#ifndef PORTVISOR_TRACE_BATCH_H
#define PORTVISOR_TRACE_BATCH_H

#include "recorder.h"

enum { ALIGNMENT = 64 };        /* that Arrow wants */
enum { SERVED_UNASSIGNED = 4 }; /* behind the routes but ROUTE_UNKNOWN */
enum { OUTCOME_DONE, OUTCOME_SPLIT, OUTCOME_FAILED };

/* The columns of schema.COLUMNS, in its order: name, type of an element. */
#define COLUMNS(X) \
    X(seq, int64_t) X(time, int64_t) X(host_ns, uint32_t) X(vcpu, uint8_t) X(rip, uint64_t) X(kind, uint8_t) \
    X(port, uint16_t) X(size, uint8_t) X(count, uint32_t) X(value, uint32_t) X(data, int32_t) X(device, uint16_t) \
    X(reg, uint16_t) X(depth, uint8_t) X(served, uint8_t) X(outcome, uint8_t)

/* Columns that may be null. */
#define NULLABLE(X) X(rip) X(port) X(size) X(data) X(served) X(outcome)

typedef struct {
    PyObject_HEAD
    char *memory;
    size_t size_of_memory, length; /* length: of the part that is in use */
    Py_ssize_t rows;
    size_t blob_bytes;
#define MEMBER(name, type) type *name;
    COLUMNS(MEMBER)
#undef MEMBER
#define MEMBER(name) uint8_t *name##_valid; Py_ssize_t name##_nulls;
    NULLABLE(MEMBER)
#undef MEMBER
    char *blobs;
} Batch;

static PyTypeObject BatchType;

/* The memory of the last batch that was given up, for the next one: new pages cost more than filling them. */
static struct { char *memory; size_t size; } spare;

static void free_spare(void)
{
    free(spare.memory);
    spare.memory = NULL;
    spare.size = 0;
}

static void batch_dealloc(Batch *b)
{
    if (b->size_of_memory > spare.size) {
        free_spare();
        spare.memory = b->memory;
        spare.size = b->size_of_memory;
    } else {
        free(b->memory);
    }
    Py_TYPE(b)->tp_free(b);
}

/* An empty one, which takes over the spare memory. */
static Batch *new_batch(void)
{
    Batch *b = (Batch *)BatchType.tp_alloc(&BatchType, 0);
    if (b) {
        b->memory = spare.memory;
        b->size_of_memory = spare.size;
        spare.memory = NULL;
        spare.size = 0;
    }
    return b;
}

static int batch_get_buffer(Batch *b, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)b, b->memory, b->length, true, flags);
}

static PyBufferProcs batch_buffer = {.bf_getbuffer = (getbufferproc)batch_get_buffer};

static PyTypeObject BatchType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "portvisor.trace._tap.Batch",
    .tp_basicsize = sizeof(Batch),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)batch_dealloc,
    .tp_as_buffer = &batch_buffer,
};

static size_t aligned(size_t size)
{
    return (size + ALIGNMENT - 1) & -(size_t)ALIGNMENT;
}

/* Give every column its place; false if there is no memory. */
static bool lay_out(Batch *b, Py_ssize_t rows, size_t blob_bytes)
{
    size_t total = ALIGNMENT, bits = aligned(rows / 8 + 1);
    b->rows = rows;
    b->blob_bytes = blob_bytes;
#define ADD(name, type) total += aligned((rows + 1) * sizeof(type));
    COLUMNS(ADD)
#undef ADD
#define ADD(name) total += bits;
    NULLABLE(ADD)
#undef ADD
    b->length = total + blob_bytes;
    if (b->size_of_memory < b->length) {
        free(b->memory);
        b->memory = malloc(b->length);
        b->size_of_memory = b->memory ? b->length : 0;
    }
    if (!b->memory)
        return false;
    char *at = (char *)aligned((uintptr_t)b->memory);
#define PLACE(name, type) \
    b->name = (type *)at; \
    at += aligned((rows + 1) * sizeof(type));
    COLUMNS(PLACE)
#undef PLACE
#define PLACE(name) \
    b->name##_valid = (uint8_t *)at; \
    at += bits;
    NULLABLE(PLACE)
#undef PLACE
    b->blobs = at;
    return true;
}

static inline bool is_access(const Row *row)
{
    return row->kind <= KIND_OUTS;
}

static inline bool has_size(const Row *row)
{
    return is_access(row) || row->kind == KIND_MMIO_IN || row->kind == KIND_MMIO_OUT;
}

static inline int route_of(const Row *row)
{
    return row->flags >> ROUTE_SHIFT;
}

static inline bool has_rip(const Row *row)
{
    return is_access(row) && (row->flags & FLAG_RIP) && route_of(row) != ROUTE_COALESCED;
}

static inline bool has_data(const Row *row)
{
    return row->data != 0;
}

static inline bool was_served(const Row *row)
{
    return has_size(row) && (route_of(row) || (row->flags & FLAG_UNASSIGNED));
}

static inline uint8_t served_of(const Row *row)
{
    return !was_served(row) ? 0 : row->flags & FLAG_UNASSIGNED ? SERVED_UNASSIGNED : route_of(row) - 1;
}

static inline uint8_t outcome_of(const Row *row)
{
    return row->flags & FLAG_FAILED ? OUTCOME_FAILED : row->flags & FLAG_SPLIT ? OUTCOME_SPLIT : OUTCOME_DONE;
}

static uint8_t ones_in[256];

static void count_ones(void)
{
    for (int i = 1; i < 256; i++)
        ones_in[i] = ones_in[i / 2] + (i & 1);
}

/* Eight records, or the last ones, into all columns but `data` and `count`; their validity bits are one byte each. */
static inline void fill_eight(Batch *b, const Row *row, Py_ssize_t at, int count, int64_t seq, double ns_per_tick)
{
#define NONE(name) unsigned name##_bits = 0;
    NULLABLE(NONE)
#undef NONE
    Py_ssize_t start = at;
    for (int i = 0; i < count; i++, row++, at++) {
        b->seq[at] = seq + i;
        b->time[at] = row->time;
        b->host_ns[at] = (uint32_t)(row->ticks * ns_per_tick);
        b->vcpu[at] = 0;
        b->rip[at] = has_rip(row) ? row->rip : 0;
        b->kind[at] = row->kind;
        b->port[at] = row->port;
        b->size[at] = row->size;
        b->value[at] = row->value;
        b->device[at] = row->device;
        b->reg[at] = row->reg;
        b->depth[at] = row->depth;
        b->served[at] = served_of(row);
        b->outcome[at] = outcome_of(row);
        rip_bits |= has_rip(row) << i;
        port_bits |= is_access(row) << i;
        size_bits |= has_size(row) << i;
        data_bits |= has_data(row) << i;
        served_bits |= was_served(row) << i;
    }
    outcome_bits = size_bits;
#define KEEP(name) \
    b->name##_valid[start / 8] = name##_bits; \
    b->name##_nulls += count - ones_in[name##_bits];
    NULLABLE(KEEP)
#undef KEEP
}

/* `count`, and `data` behind its offsets. Blobs are immutable and held by the block: no lock is needed to read them. */
static void fill_blobs(Batch *b, const Block *block)
{
    int32_t end = 0;
    for (Py_ssize_t i = 0; i < b->rows; i++) {
        const Row *row = block->rows + i;
        b->data[i] = end;
        b->count[i] = 1;
        if (!row->data)
            continue;
        PyObject *blob = PyList_GET_ITEM(block->blobs, row->data - 1);
        Py_ssize_t length = PyBytes_GET_SIZE(blob);
        memcpy(b->blobs + end, PyBytes_AS_STRING(blob), length);
        end += length;
        if (row->size && (row->kind == KIND_INS || row->kind == KIND_OUTS))
            b->count[i] = length / row->size;
    }
    b->data[b->rows] = end;
}

/* Without the interpreter lock. */
static bool fill_batch(Batch *b, const Block *block, double ns_per_tick)
{
    if (!lay_out(b, block->count, block->blob_bytes))
        return false;
    for (Py_ssize_t at = 0; at < b->rows; at += 8) {
        int count = b->rows - at < 8 ? b->rows - at : 8;
        fill_eight(b, block->rows + at, at, count, block->first + at, ns_per_tick);
    }
    fill_blobs(b, block);
    return true;
}

/* (start, bytes, start of the validity bits, nulls); the two last are 0 where nothing is null. */
static bool describe_column(PyObject *list, Batch *b, void *start, size_t bytes, uint8_t *valid, Py_ssize_t nulls)
{
    Py_ssize_t bits = nulls ? (char *)valid - b->memory : 0;
    PyObject *column = Py_BuildValue("nnnn", (Py_ssize_t)((char *)start - b->memory), (Py_ssize_t)bytes, bits, nulls);
    bool good = column && PyList_Append(list, column) == 0;
    Py_XDECREF(column);
    return good;
}

/* (batch, rows, start and length of `data`'s bytes, [a column each]) */
static PyObject *describe_batch(Batch *b)
{
    uint8_t *const never = NULL;
    PyObject *columns = PyList_New(0);
    bool good = columns != NULL;
#define DESCRIBE(name, valid, nulls) \
    good = good && describe_column(columns, b, b->name, entries * sizeof *b->name, valid, nulls);
#define PLAIN(name) DESCRIBE(name, never, 0)
#define OPTIONAL(name) DESCRIBE(name, b->name##_valid, b->name##_nulls)
    Py_ssize_t entries = b->rows;
    PLAIN(seq) PLAIN(time) PLAIN(host_ns) PLAIN(vcpu) OPTIONAL(rip) PLAIN(kind) OPTIONAL(port) OPTIONAL(size)
    PLAIN(count) PLAIN(value)
    entries = b->rows + 1; /* offsets: one more than records */
    OPTIONAL(data)
    entries = b->rows;
    PLAIN(device) PLAIN(reg) PLAIN(depth) OPTIONAL(served) OPTIONAL(outcome)
#undef DESCRIBE
#undef PLAIN
#undef OPTIONAL
    PyObject *result = NULL;
    if (good)
        result = Py_BuildValue("OnnnO", b, b->rows, (Py_ssize_t)(b->blobs - b->memory), (Py_ssize_t)b->blob_bytes,
                               columns);
    Py_XDECREF(columns);
    return result;
}

/* next(seconds): the next batch as columns, of the records of that many seconds at most; None at the end. */
static PyObject *recorder_next(Recorder *r, PyObject *seconds)
{
    double interval = PyFloat_AsDouble(seconds);
    if (PyErr_Occurred())
        return NULL;
    finish_busy(r);
    for (;;) {
        Batch *b = new_batch();
        if (!b)
            return NULL;
        Block *block;
        bool good = false;
        Py_BEGIN_ALLOW_THREADS
        block = await_block(r, monotonic() + (int64_t)(interval * NS_PER_S));
        if (block)
            good = fill_batch(b, block, r->ns_per_tick);
        Py_END_ALLOW_THREADS
        r->busy = block;
        PyObject *result = good ? describe_batch(b) : block ? PyErr_NoMemory() : NULL;
        Py_DECREF(b);
        if (block)
            return result;
        if (!r->closing) {
            hand_over(r);
        } else if (!r->ready) { /* else it was closed between the deadline and now: there is more */
            r->consumed = false;
            free_spare();
            Py_RETURN_NONE;
        }
    }
}

#endif
