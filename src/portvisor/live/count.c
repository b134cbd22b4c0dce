/* Counting port traffic: callables that stand in the port tables, pass an access on and add it up.
 *
 * One Counters a machine, one Tap a device, range and direction. An access costs two time stamps and a few additions
 * in a slot of its port; nothing is allocated and no Python code runs, unless somebody watches the port.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../trace/interrupt.h"
#include "../trace/stamps.h"

enum { PORTS = 0x10000, DEVICES = 0x1000, KEPT = 16 };
enum { WRITE = 1, BLOCK = 2 };
enum { CALIBRATION_NS = 1000000 };

typedef struct {
    uint64_t reads, writes, bytes, ticks;
} Totals;

typedef struct {
    uint32_t value;
    uint16_t name;
    uint8_t size, flags;
} Access;

typedef struct {
    Totals totals;
    uint16_t device;
    bool watched;
    Access last[KEPT]; /* a ring; the newest is at (reads + writes - 1) % KEPT */
} Slot;

typedef struct {
    PyObject_HEAD
    Slot *slots;
    Totals *devices;
    uint16_t *touched;
    uint32_t touched_count;
    uint64_t start_ticks;
    int64_t start_ns;
    double ns_per_tick; /* 0: not known yet */
    PyObject *watchers; /* port -> callable(offset, size, write) that gives the number of the register's name */
} Counters;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Counters *counters;
    PyObject *function;
    long delta;
    uint16_t device;
    bool write;
} Tap;

/* --- Counters ------------------------------------------------------------------------------------------------ */

static void add(Totals *totals, bool write, uint64_t bytes, uint64_t passed)
{
    if (write)
        totals->writes++;
    else
        totals->reads++;
    totals->bytes += bytes;
    totals->ticks += passed;
}

static void note(Counters *c, uint16_t port, uint16_t device, Access access, uint64_t bytes, uint64_t passed)
{
    Slot *slot = &c->slots[port];
    uint64_t before = slot->totals.reads + slot->totals.writes;
    if (!before)
        c->touched[c->touched_count++] = port;
    slot->last[before % KEPT] = access;
    slot->device = device;
    add(&slot->totals, access.flags & WRITE, bytes, passed);
    add(&c->devices[device], access.flags & WRITE, bytes, passed);
}

static PyObject *counters_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    if (!PyArg_ParseTuple(args, ""))
        return NULL;
    Counters *c = (Counters *)type->tp_alloc(type, 0);
    if (!c)
        return NULL;
    /* Pages of zeros until a port is used. */
    c->slots = calloc(PORTS, sizeof(Slot));
    c->touched = calloc(PORTS, sizeof(uint16_t));
    c->devices = calloc(DEVICES, sizeof(Totals));
    c->watchers = PyDict_New();
    if (!c->slots || !c->touched || !c->devices || !c->watchers) {
        Py_DECREF(c);
        return PyErr_NoMemory();
    }
    c->start_ticks = ticks();
    c->start_ns = monotonic();
    return (PyObject *)c;
}

static int counters_traverse(Counters *c, visitproc visit, void *arg)
{
    Py_VISIT(c->watchers);
    return 0;
}

static int counters_clear(Counters *c)
{
    Py_CLEAR(c->watchers);
    return 0;
}

static void counters_dealloc(Counters *c)
{
    PyObject_GC_UnTrack(c);
    counters_clear(c);
    free(c->slots);
    free(c->touched);
    free(c->devices);
    Py_TYPE(c)->tp_free(c);
}

/* Measured over the life of the counters, and kept once it is exact enough: sums must not shrink. */
static double ns_per_tick(Counters *c)
{
    if (c->ns_per_tick != 0)
        return c->ns_per_tick;
    int64_t ns;
    while ((ns = monotonic() - c->start_ns) < CALIBRATION_NS) {
    }
    uint64_t passed = ticks() - c->start_ticks;
    c->ns_per_tick = passed ? (double)ns / passed : 1.0;
    return c->ns_per_tick;
}

static PyObject *device_row(Counters *c, uint16_t device, double scale)
{
    Totals *t = &c->devices[device];
    return Py_BuildValue("iKKKK", device, t->reads, t->writes, t->bytes, (unsigned long long)(t->ticks * scale));
}

static PyObject *counters_devices(Counters *c, PyObject *unused)
{
    (void)unused;
    double scale = ns_per_tick(c);
    PyObject *rows = PyList_New(0);
    for (int i = 0; rows && i < DEVICES; i++) {
        if (!c->devices[i].reads && !c->devices[i].writes)
            continue;
        PyObject *row = device_row(c, i, scale);
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

typedef struct {
    uint64_t accesses;
    uint16_t port;
} Busy;

/* Busiest first, ports in order where equal. */
static int by_accesses(const void *left, const void *right)
{
    const Busy *a = left, *b = right;
    if (a->accesses != b->accesses)
        return a->accesses < b->accesses ? 1 : -1;
    return (int)a->port - b->port;
}

static PyObject *port_row(Counters *c, uint16_t port, double scale)
{
    Slot *slot = &c->slots[port];
    Totals *t = &slot->totals;
    return Py_BuildValue("iiKKKK", port, slot->device, t->reads, t->writes, t->bytes,
                         (unsigned long long)(t->ticks * scale));
}

static PyObject *counters_ports(Counters *c, PyObject *args)
{
    unsigned limit;
    if (!PyArg_ParseTuple(args, "I", &limit))
        return NULL;
    uint32_t count = c->touched_count;
    Busy *busy = malloc((count + 1) * sizeof(Busy));
    if (!busy)
        return PyErr_NoMemory();
    for (uint32_t i = 0; i < count; i++) {
        Totals *t = &c->slots[c->touched[i]].totals;
        busy[i] = (Busy){t->reads + t->writes, c->touched[i]};
    }
    qsort(busy, count, sizeof(Busy), by_accesses);
    double scale = ns_per_tick(c);
    PyObject *rows = PyList_New(0);
    for (uint32_t i = 0; rows && i < count && i < limit; i++) {
        PyObject *row = port_row(c, busy[i].port, scale);
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    free(busy);
    return rows ? Py_BuildValue("NI", rows, count) : NULL;
}

static bool parse_port(PyObject *number, uint16_t *port)
{
    long value = PyLong_AsLong(number);
    if (value >= 0 && value < PORTS) {
        *port = value;
        return true;
    }
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "port: 0 to FFFF");
    return false;
}

static PyObject *counters_last(Counters *c, PyObject *number)
{
    uint16_t port;
    if (!parse_port(number, &port))
        return NULL;
    Slot *slot = &c->slots[port];
    uint64_t accesses = slot->totals.reads + slot->totals.writes;
    PyObject *rows = PyList_New(0);
    for (uint64_t i = accesses > KEPT ? accesses - KEPT : 0; rows && i < accesses; i++) {
        Access *a = &slot->last[i % KEPT];
        PyObject *row = Py_BuildValue("KIiii", (unsigned long long)i, a->value, a->size, a->flags, a->name);
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

static PyObject *counters_watch(Counters *c, PyObject *args)
{
    PyObject *number, *watcher;
    uint16_t port;
    if (!PyArg_ParseTuple(args, "OO", &number, &watcher) || !parse_port(number, &port))
        return NULL;
    if (watcher != Py_None) {
        if (PyDict_SetItem(c->watchers, number, watcher) < 0)
            return NULL;
    } else if (PyDict_Contains(c->watchers, number) == 1 && PyDict_DelItem(c->watchers, number) < 0) {
        return NULL;
    }
    c->slots[port].watched = watcher != Py_None;
    /* What was kept is of nobody's list of names. */
    for (int i = 0; i < KEPT; i++)
        c->slots[port].last[i].name = 0;
    Py_RETURN_NONE;
}

/* block(port, device, write, size, count, first value, ns, name) */
static PyObject *counters_block(Counters *c, PyObject *args)
{
    PyObject *number;
    uint16_t port;
    unsigned device, size, name;
    int write;
    unsigned long value;
    unsigned long long count, ns;
    if (!PyArg_ParseTuple(args, "OIpIKkKI", &number, &device, &write, &size, &count, &value, &ns,
                          &name) ||
        !parse_port(number, &port))
        return NULL;
    if (device >= DEVICES) {
        PyErr_SetString(PyExc_ValueError, "device: 0 to 4095");
        return NULL;
    }
    Access access = {.value = (uint32_t)value, .name = name, .size = size, .flags = BLOCK | (write ? WRITE : 0)};
    note(c, port, device, access, size * count, (uint64_t)(ns / ns_per_tick(c)));
    Py_RETURN_NONE;
}

/* --- Tap ------------------------------------------------------------------------------------------------------ */

/* The register's number in the watcher's list; 0 if it has none. Asked before the access, which may change it. */
static uint16_t name_of(Tap *t, uint16_t port, PyObject *const *args)
{
    PyObject *key = PyLong_FromLong(port), *watcher = key ? PyDict_GetItemWithError(t->counters->watchers, key) : NULL;
    Py_XDECREF(key);
    if (!watcher) {
        PyErr_Clear();
        return 0;
    }
    PyObject *arguments[] = {NULL, args[0], args[1], t->write ? Py_True : Py_False};
    Py_INCREF(watcher);
    PyObject *number = PyObject_Vectorcall(watcher, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    long name = number ? PyLong_AsLong(number) : 0;
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        drop_error(watcher);
        name = 0;
    }
    Py_DECREF(watcher);
    return (uint16_t)name;
}

static PyObject *tap_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Tap *t = (Tap *)self;
    if (PyVectorcall_NARGS(nargsf) != (t->write ? 3 : 2) || names) {
        PyErr_SetString(PyExc_TypeError, "a tap takes (offset, size) or (offset, size, value)");
        return NULL;
    }
    long offset = PyLong_AsLong(args[0]), size = PyLong_AsLong(args[1]), port = offset + t->delta;
    if ((offset == -1 || size == -1) && PyErr_Occurred())
        return NULL;
    if (port < 0 || port >= PORTS) /* the bytes that a wide access reaches beyond the last port */
        return PyObject_Vectorcall(t->function, args, nargsf, NULL);
    Access access = {.size = size, .flags = t->write ? WRITE : 0};
    if (t->counters->slots[port].watched)
        access.name = name_of(t, port, args);
    if (t->write) {
        unsigned long value = PyLong_AsUnsignedLongMask(args[2]);
        if (value == (unsigned long)-1 && PyErr_Occurred())
            return NULL;
        access.value = (uint32_t)value & ones(size);
    }
    uint64_t begin = ticks();
    PyObject *result = PyObject_Vectorcall(t->function, args, nargsf, NULL);
    uint64_t passed = ticks() - begin;
    if (!t->write)
        access.value = (result && PyLong_Check(result) ? (uint32_t)PyLong_AsUnsignedLongMask(result) : UINT32_MAX) &
                       ones(size);
    note(t->counters, port, t->device, access, size, passed);
    return result;
}

static PyTypeObject CountersType;

static PyObject *tap_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *counters, *function;
    long delta;
    unsigned device;
    int write;
    if (!PyArg_ParseTuple(args, "O!OlIp", &CountersType, &counters, &function, &delta, &device, &write))
        return NULL;
    if (device >= DEVICES) {
        PyErr_SetString(PyExc_ValueError, "device: 0 to 4095");
        return NULL;
    }
    Tap *t = (Tap *)type->tp_alloc(type, 0);
    if (!t)
        return NULL;
    t->vectorcall = tap_call;
    t->counters = (Counters *)Py_NewRef(counters);
    t->function = Py_NewRef(function);
    t->delta = delta;
    t->device = device;
    t->write = write;
    return (PyObject *)t;
}

static int tap_traverse(Tap *t, visitproc visit, void *arg)
{
    Py_VISIT(t->counters);
    Py_VISIT(t->function);
    return 0;
}

static int tap_clear(Tap *t)
{
    Py_CLEAR(t->counters);
    Py_CLEAR(t->function);
    return 0;
}

static void tap_dealloc(Tap *t)
{
    PyObject_GC_UnTrack(t);
    tap_clear(t);
    Py_TYPE(t)->tp_free(t);
}

/* --- the module ----------------------------------------------------------------------------------------------- */

static PyMethodDef counters_methods[] = {
    {"devices", (PyCFunction)counters_devices, METH_NOARGS, "(device, reads, writes, bytes, ns) of every device used."},
    {"ports", (PyCFunction)counters_ports, METH_VARARGS,
     "At most so many of (port, device, reads, writes, bytes, ns), busiest first; and how many ports were used."},
    {"last", (PyCFunction)counters_last, METH_O, "(number, value, size, flags, name) of a port's last accesses."},
    {"watch", (PyCFunction)counters_watch, METH_VARARGS, "Let a callable name the registers of a port; None: no more."},
    {"block", (PyCFunction)counters_block, METH_VARARGS, "Count a block: port, device, write, size, count, value, ns, name."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject CountersType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "portvisor.live._count.Counters",
    .tp_basicsize = sizeof(Counters),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = counters_new,
    .tp_dealloc = (destructor)counters_dealloc,
    .tp_traverse = (traverseproc)counters_traverse,
    .tp_clear = (inquiry)counters_clear,
    .tp_methods = counters_methods,
};

static PyTypeObject TapType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "portvisor.live._count.Tap",
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
    PyModuleDef_HEAD_INIT, .m_name = "_count", .m_doc = "Counting port traffic.", .m_size = -1,
};

PyMODINIT_FUNC PyInit__count(void)
{
    PyObject *m = PyModule_Create(&module);
    if (m && (PyModule_AddType(m, &CountersType) < 0 || PyModule_AddType(m, &TapType) < 0))
        Py_CLEAR(m);
    return m;
}
