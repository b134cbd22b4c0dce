/* The recorder's hot path: callables that stand in the port tables, pass an access on and note it in columns.
 *
 * One Recorder a machine, one Tap a range and direction. A Tap costs two time stamps and twelve stores, so a traced
 * machine keeps most of its speed; everything else (names, files) is done in Python, a batch at a time.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

enum { KIND_IN, KIND_OUT };
enum { FLAG_FAILED = 1 };
enum { NS_PER_S = 1000000000, CALIBRATION_NS = 2000000, SYNC_NS = 100000 };

static int64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A cheap stamp for how long a handler took. */
static uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return monotonic();
#endif
}

typedef struct {
    PyObject_HEAD
    Py_ssize_t capacity, count;
    int64_t sequence, start, held, sync_ns, last;
    uint64_t sync_ticks;
    bool is_held;
    int depth;
    double ns_per_tick;
    uint64_t flush_at, flush_every;
    PyObject *source, *on_first, *on_flush, *registers;
    int64_t *seq, *time;
    uint32_t *value, *host_ns, *data;
    uint16_t *port, *device, *reg;
    uint8_t *size, *kind, *depths, *flags;
} Recorder;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Recorder *recorder;
    PyObject *function, *namer;
    PyObject *ports; /* NULL, or bytes: one bit for each port whose accesses are noted */
    PyObject *ids; /* bytes: a uint16 register number for each offset of the range */
    long delta, first;
    uint16_t device;
    uint8_t flags;
    bool write;
} Tap;

/* --- Recorder ------------------------------------------------------------------------------------------------ */

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
        PyErr_WriteUnraisable(r->source);
        now = 0;
    }
    return now;
}

/* The time of an event whose device did not ask: from the stamp at its end, as long as a real one is fresh. */
static int64_t time_at(Recorder *r, uint64_t stamp)
{
    if (r->source || !stamp)
        return sample(r);
    double passed = (stamp - r->sync_ticks) * r->ns_per_tick;
    int64_t now = passed < SYNC_NS ? r->sync_ns + (int64_t)passed : sample(r);
    return now > r->last ? now : r->last;
}

static void call_hook(PyObject *hook)
{
    if (!hook)
        return;
    PyObject *result = PyObject_CallNoArgs(hook);
    if (result)
        Py_DECREF(result);
    else
        PyErr_WriteUnraisable(hook);
}

typedef struct {
    uint32_t value, host_ns, data;
    uint16_t port, device, reg;
    uint8_t size, kind, flags;
    uint64_t stamp; /* ticks at the end of the event; 0: not taken */
} Row;

static void append(Recorder *r, const Row *row)
{
    if (r->count == r->capacity)
        return; /* the flush failed and was reported */
    Py_ssize_t i = r->count++;
    r->seq[i] = r->sequence++;
    r->last = r->time[i] = r->is_held ? r->held : time_at(r, row->stamp);
    r->value[i] = row->value;
    r->host_ns[i] = row->host_ns;
    r->data[i] = row->data;
    r->port[i] = row->port;
    r->device[i] = row->device;
    r->reg[i] = row->reg;
    r->size[i] = row->size;
    r->kind[i] = row->kind;
    r->depths[i] = r->depth;
    r->flags[i] = row->flags;
    if (i == 0)
        call_hook(r->on_first);
    if (r->count >= r->capacity || (r->depth == 0 && (row->stamp ? row->stamp : ticks()) >= r->flush_at))
        call_hook(r->on_flush);
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

static PyObject *recorder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    Py_ssize_t capacity;
    double interval;
    if (!PyArg_ParseTuple(args, "nd", &capacity, &interval))
        return NULL;
    if (capacity < 1 || capacity > (1 << 24)) {
        PyErr_SetString(PyExc_ValueError, "capacity: 1 to 2**24 records");
        return NULL;
    }
    Recorder *r = (Recorder *)type->tp_alloc(type, 0);
    if (!r)
        return NULL;
    r->capacity = capacity;
    r->registers = PyDict_New();
    r->seq = PyMem_Malloc(capacity * 44);
    if (!r->registers || !r->seq) {
        Py_DECREF(r);
        return PyErr_NoMemory();
    }
    r->time = r->seq + capacity;
    r->value = (uint32_t *)(r->time + capacity);
    r->host_ns = r->value + capacity;
    r->data = r->host_ns + capacity;
    r->port = (uint16_t *)(r->data + capacity);
    r->device = r->port + capacity;
    r->reg = r->device + capacity;
    r->size = (uint8_t *)(r->reg + capacity);
    r->kind = r->size + capacity;
    r->depths = r->kind + capacity;
    r->flags = r->depths + capacity;
    int64_t begin = monotonic(), end;
    uint64_t tick = ticks();
    do
        end = monotonic();
    while (end - begin < CALIBRATION_NS);
    uint64_t passed = ticks() - tick;
    r->ns_per_tick = passed ? (double)(end - begin) / passed : 1.0;
    r->flush_every = interval * NS_PER_S / r->ns_per_tick;
    r->flush_at = ticks() + r->flush_every;
    r->is_held = true; /* at 0, until a source is set */
    return (PyObject *)r;
}

static int recorder_traverse(Recorder *r, visitproc visit, void *arg)
{
    Py_VISIT(r->source);
    Py_VISIT(r->on_first);
    Py_VISIT(r->on_flush);
    Py_VISIT(r->registers);
    return 0;
}

static int recorder_clear(Recorder *r)
{
    Py_CLEAR(r->source);
    Py_CLEAR(r->on_first);
    Py_CLEAR(r->on_flush);
    Py_CLEAR(r->registers);
    return 0;
}

static void recorder_dealloc(Recorder *r)
{
    PyObject_GC_UnTrack(r);
    recorder_clear(r);
    PyMem_Free(r->seq);
    Py_TYPE(r)->tp_free(r);
}

static PyObject *recorder_now(Recorder *r, PyObject *unused)
{
    (void)unused;
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
    } else {
        Py_XSETREF(r->source, Py_NewRef(source));
    }
    if (PyErr_Occurred())
        return NULL;
    r->is_held = false;
    Py_RETURN_NONE;
}

static PyObject *recorder_set_hooks(Recorder *r, PyObject *args)
{
    PyObject *on_first, *on_flush;
    if (!PyArg_ParseTuple(args, "OO", &on_first, &on_flush))
        return NULL;
    Py_XSETREF(r->on_first, Py_NewRef(on_first));
    Py_XSETREF(r->on_flush, Py_NewRef(on_flush));
    Py_RETURN_NONE;
}

static PyObject *recorder_enter(Recorder *r, PyObject *unused)
{
    (void)unused;
    r->depth++;
    Py_RETURN_NONE;
}

/* leave(kind, port, size, value, device, register, data): the event that enter() began is over. */
static bool parse_row(PyObject *args, Row *row)
{
    unsigned kind, port, size, device, reg;
    unsigned long value;
    if (!PyArg_ParseTuple(args, "IIIkIII", &kind, &port, &size, &value, &device, &reg, &row->data))
        return false;
    row->kind = kind;
    row->port = port;
    row->size = size;
    row->device = device;
    row->reg = reg;
    row->value = (uint32_t)value;
    row->host_ns = 0;
    row->flags = 0;
    row->stamp = 0;
    return true;
}

static PyObject *recorder_leave(Recorder *r, PyObject *args)
{
    Row row;
    leave(r);
    bool ok = parse_row(args, &row);
    if (ok)
        append(r, &row);
    if (r->depth == 0)
        r->is_held = false;
    if (!ok)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *recorder_abandon(Recorder *r, PyObject *unused)
{
    (void)unused;
    leave(r);
    if (r->depth == 0)
        r->is_held = false;
    Py_RETURN_NONE;
}

static PyObject *recorder_event(Recorder *r, PyObject *args)
{
    Row row;
    if (!parse_row(args, &row))
        return NULL;
    append(r, &row);
    Py_RETURN_NONE;
}

static PyObject *recorder_register(Recorder *r, PyObject *name)
{
    uint16_t number = register_number(r, name);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(number);
}

static PyObject *recorder_take(Recorder *r, PyObject *unused)
{
    (void)unused;
    Py_ssize_t n = r->count;
    r->count = 0;
    r->flush_at = ticks() + r->flush_every;
#define COLUMN(c) (char *)(c), (Py_ssize_t)(n * sizeof(*(c)))
    return Py_BuildValue("ny#y#y#y#y#y#y#y#y#y#y#y#", n, COLUMN(r->seq), COLUMN(r->time), COLUMN(r->value),
                         COLUMN(r->host_ns), COLUMN(r->data), COLUMN(r->port), COLUMN(r->device), COLUMN(r->reg),
                         COLUMN(r->size), COLUMN(r->kind), COLUMN(r->depths), COLUMN(r->flags));
#undef COLUMN
}

static PyTypeObject RecorderType;

/* --- Tap ------------------------------------------------------------------------------------------------------ */

static uint32_t ones(long size)
{
    return size == 4 ? UINT32_MAX : (UINT32_C(1) << 8 * size) - 1;
}

static uint16_t register_of(Tap *t, PyObject *const *args, long offset)
{
    if (t->namer) {
        PyObject *arguments[] = {NULL, args[0], args[1], t->write ? Py_True : Py_False};
        PyObject *name = PyObject_Vectorcall(t->namer, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        uint16_t number = name && PyUnicode_Check(name) ? register_number(t->recorder, name) : 0;
        Py_XDECREF(name);
        PyErr_Clear();
        return number;
    }
    size_t index = offset - t->first;
    uint16_t number = 0;
    if (index < (size_t)PyBytes_GET_SIZE(t->ids) / 2)
        memcpy(&number, PyBytes_AS_STRING(t->ids) + 2 * index, 2);
    return number;
}

static PyObject *tap_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Tap *t = (Tap *)self;
    Recorder *r = t->recorder;
    if (PyVectorcall_NARGS(nargsf) != (t->write ? 3 : 2) || names) {
        PyErr_SetString(PyExc_TypeError, "a tap takes (offset, size) or (offset, size, value)");
        return NULL;
    }
    long offset = PyLong_AsLong(args[0]), size = PyLong_AsLong(args[1]);
    Row row = {.port = offset + t->delta, .size = size, .device = t->device, .flags = t->flags};
    row.kind = t->write ? KIND_OUT : KIND_IN;
    if (t->write)
        row.value = (uint32_t)PyLong_AsUnsignedLongMask(args[2]) & ones(size);
    if (PyErr_Occurred())
        return NULL;
    if (t->ports && !(PyBytes_AS_STRING(t->ports)[row.port / 8] >> row.port % 8 & 1))
        return PyObject_Vectorcall(t->function, args, nargsf & ~PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    row.reg = register_of(t, args, offset);
    r->depth++;
    uint64_t begin = ticks();
    PyObject *result = PyObject_Vectorcall(t->function, args, nargsf & ~PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    row.stamp = ticks();
    double ns = (row.stamp - begin) * r->ns_per_tick;
    row.host_ns = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    leave(r);
    PyObject *type, *value, *traceback;
    if (!result) {
        PyErr_Fetch(&type, &value, &traceback);
        row.flags |= FLAG_FAILED;
    }
    if (!t->write) {
        row.value = ones(size);
        if (result && PyLong_Check(result))
            row.value &= (uint32_t)PyLong_AsUnsignedLongMask(result);
    }
    append(r, &row);
    if (r->depth == 0)
        r->is_held = false;
    if (!result)
        PyErr_Restore(type, value, traceback);
    return result;
}

static PyObject *tap_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *recorder, *function, *namer, *ids, *ports;
    long delta, first;
    unsigned device, flags;
    int write;
    if (!PyArg_ParseTuple(args, "O!OOSllIIpO", &RecorderType, &recorder, &function, &namer, &ids, &delta, &first, &device,
                          &flags, &write, &ports))
        return NULL;
    if (ports != Py_None && (!PyBytes_Check(ports) || PyBytes_GET_SIZE(ports) <= UINT16_MAX / 8)) {
        PyErr_SetString(PyExc_TypeError, "ports: bytes with a bit for each port, or None");
        return NULL;
    }
    Tap *t = (Tap *)type->tp_alloc(type, 0);
    if (!t)
        return NULL;
    t->vectorcall = tap_call;
    t->recorder = (Recorder *)Py_NewRef(recorder);
    t->function = Py_NewRef(function);
    t->namer = namer == Py_None ? NULL : Py_NewRef(namer);
    t->ids = Py_NewRef(ids);
    t->ports = ports == Py_None ? NULL : Py_NewRef(ports);
    t->delta = delta;
    t->first = first;
    t->device = device;
    t->flags = flags;
    t->write = write;
    return (PyObject *)t;
}

static int tap_traverse(Tap *t, visitproc visit, void *arg)
{
    Py_VISIT(t->recorder);
    Py_VISIT(t->function);
    Py_VISIT(t->namer);
    return 0;
}

static int tap_clear(Tap *t)
{
    Py_CLEAR(t->recorder);
    Py_CLEAR(t->function);
    Py_CLEAR(t->namer);
    Py_CLEAR(t->ids);
    Py_CLEAR(t->ports);
    return 0;
}

static void tap_dealloc(Tap *t)
{
    PyObject_GC_UnTrack(t);
    tap_clear(t);
    Py_TYPE(t)->tp_free(t);
}

/* --- the module ----------------------------------------------------------------------------------------------- */

static PyMethodDef recorder_methods[] = {
    {"now", (PyCFunction)recorder_now, METH_NOARGS, "Guest time in ns; inside an event it stands still."},
    {"set_source", (PyCFunction)recorder_set_source, METH_O, "Where time comes from: a callable, or the start of the monotonic clock."},
    {"set_hooks", (PyCFunction)recorder_set_hooks, METH_VARARGS, "Functions for the first record of a batch, and for a batch that is due."},
    {"enter", (PyCFunction)recorder_enter, METH_NOARGS, "An event begins: time stands still."},
    {"leave", (PyCFunction)recorder_leave, METH_VARARGS, "It is over: note it."},
    {"abandon", (PyCFunction)recorder_abandon, METH_NOARGS, "It is over and is not noted."},
    {"event", (PyCFunction)recorder_event, METH_VARARGS, "Note an event."},
    {"register", (PyCFunction)recorder_register, METH_O, "The number of a register's name."},
    {"take", (PyCFunction)recorder_take, METH_NOARGS, "Number of records and their columns; empties the buffer."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef recorder_members[] = {
    {"registers", T_OBJECT, offsetof(Recorder, registers), READONLY, "Register names with their numbers."},
    {"count", T_PYSSIZET, offsetof(Recorder, count), READONLY, "Records that wait."},
    {"depth", T_INT, offsetof(Recorder, depth), READONLY, "Events that are under way."},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject RecorderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "portvisor.trace._tap.Recorder",
    .tp_basicsize = sizeof(Recorder),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = recorder_new,
    .tp_dealloc = (destructor)recorder_dealloc,
    .tp_traverse = (traverseproc)recorder_traverse,
    .tp_clear = (inquiry)recorder_clear,
    .tp_methods = recorder_methods,
    .tp_members = recorder_members,
};

static PyTypeObject TapType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "portvisor.trace._tap.Tap",
    .tp_basicsize = sizeof(Tap),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = tap_new,
    .tp_dealloc = (destructor)tap_dealloc,
    .tp_traverse = (traverseproc)tap_traverse,
    .tp_clear = (inquiry)tap_clear,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Tap, vectorcall),
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_tap", .m_doc = "The recorder's hot path.", .m_size = -1,
};

PyMODINIT_FUNC PyInit__tap(void)
{
    PyObject *m = PyModule_Create(&module);
    if (m && (PyModule_AddType(m, &RecorderType) < 0 || PyModule_AddType(m, &TapType) < 0))
        Py_CLEAR(m);
    return m;
}
