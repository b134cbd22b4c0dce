/* The recorder's hot path: callables that stand in the port tables, pass an access on and note it.
 *
 * One Recorder a machine (recorder.h), one Tap a port, size and direction. A Tap costs two time stamps and a store of
 * 40 bytes, so a traced machine keeps most of its speed; everything else happens in a writer's thread (batch.h).
 */
#include "batch.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Recorder *recorder;
    PyObject *callee, *self; /* what stood in the table; a bound method as its two halves */
    vectorcallfunc enter;    /* how to call it */
    PyObject *namer;
    PyObject *ports; /* NULL, or bytes: one bit for each port whose accesses are noted */
    uint16_t port, device, reg;
    uint8_t size, flags;
    bool write;
} Tap;

/* Ask the device, for a register whose name depends on its state. */
static uint16_t ask_name(Tap *t, PyObject *const *args)
{
    PyObject *arguments[] = {NULL, args[0], args[1], t->write ? Py_True : Py_False};
    PyObject *name = PyObject_Vectorcall(t->namer, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    uint16_t number = name && PyUnicode_Check(name) ? register_number(t->recorder, name) : 0;
    Py_XDECREF(name);
    drop_error(NULL);
    return number;
}

static inline PyObject *pass_on(Tap *t, PyObject *const *args)
{
    PyObject *arguments[] = {NULL, t->self, args[0], args[1], t->write ? args[2] : NULL};
    int bound = t->self != NULL;
    return t->enter(t->callee, arguments + 2 - bound, (t->write ? 3 : 2) + bound, NULL);
}

/* Have the access served, and note it. */
static inline PyObject *serve(Tap *t, PyObject *const *args, uint16_t port, uint8_t size, uint16_t reg)
{
    Recorder *r = t->recorder;
    uint32_t value = ones(size);
    uint8_t flags = t->flags;
    if (t->write)
        value &= (uint32_t)PyLong_AsUnsignedLongMask(args[2]);
    r->depth++;
    uint64_t begin = ticks();
    PyObject *result = pass_on(t, args);
    uint64_t end = ticks(), taken = end - begin;
    leave(r);
    PyObject *type, *error, *traceback;
    if (!result) {
        PyErr_Fetch(&type, &error, &traceback);
        flags |= FLAG_FAILED;
    } else if (!t->write && PyLong_Check(result)) {
        value &= (uint32_t)PyLong_AsUnsignedLongMask(result);
    }
    int64_t time = event_time(r, end);
    append(r, (Row){.time = time, .value = value, .ticks = taken < UINT32_MAX ? taken : UINT32_MAX, .port = port,
                    .device = t->device, .reg = reg, .size = size, .kind = t->write ? KIND_OUT : KIND_IN,
                    .flags = flags});
    if (r->depth == 0)
        r->is_held = false;
    if (!result)
        PyErr_Restore(type, error, traceback);
    return result;
}

static bool check_call(Tap *t, size_t nargsf, PyObject *names)
{
    if (PyVectorcall_NARGS(nargsf) == (t->write ? 3 : 2) && !names)
        return true;
    PyErr_SetString(PyExc_TypeError, "a tap takes (offset, size) or (offset, size, value)");
    return false;
}

static PyObject *tap_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Tap *t = (Tap *)self;
    if (!check_call(t, nargsf, names))
        return NULL;
    return serve(t, args, t->port, t->size, t->namer ? ask_name(t, args) : t->reg);
}

/* The one that stands at all ports of nobody: the offset is the port. */
static PyObject *open_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Tap *t = (Tap *)self;
    if (!check_call(t, nargsf, names))
        return NULL;
    uint16_t port = PyLong_AsUnsignedLongMask(args[0]);
    uint8_t size = PyLong_AsUnsignedLongMask(args[1]);
    if (!PyErr_Occurred() && size != 1 && size != 2 && size != 4)
        PyErr_SetString(PyExc_ValueError, "size: 1, 2 or 4");
    if (PyErr_Occurred())
        return NULL;
    if (PyBytes_AS_STRING(t->ports)[port / 8] >> port % 8 & 1)
        return serve(t, args, port, size, t->reg);
    return pass_on(t, args);
}

static PyTypeObject RecorderType;

static void set_function(Tap *t, PyObject *function)
{
    bool method = PyMethod_Check(function);
    t->callee = Py_NewRef(method ? PyMethod_GET_FUNCTION(function) : function);
    t->self = method ? Py_NewRef(PyMethod_GET_SELF(function)) : NULL;
    t->enter = PyVectorcall_Function(t->callee);
    if (!t->enter)
        t->enter = PyObject_Vectorcall;
}

static PyObject *tap_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *recorder, *function, *namer, *ports;
    unsigned port, size, device, reg, flags;
    int write;
    if (!PyArg_ParseTuple(args, "O!OOIIIIIpO", &RecorderType, &recorder, &function, &namer, &port, &size, &device, &reg,
                          &flags, &write, &ports))
        return NULL;
    if (ports != Py_None && (!PyBytes_Check(ports) || PyBytes_GET_SIZE(ports) <= UINT16_MAX / 8)) {
        PyErr_SetString(PyExc_TypeError, "ports: bytes with a bit for each port, or None");
        return NULL;
    }
    if (ports == Py_None && size != 1 && size != 2 && size != 4) {
        PyErr_SetString(PyExc_ValueError, "size: 1, 2 or 4");
        return NULL;
    }
    Tap *t = (Tap *)type->tp_alloc(type, 0);
    if (!t)
        return NULL;
    t->vectorcall = ports == Py_None ? tap_call : open_call;
    t->recorder = (Recorder *)Py_NewRef(recorder);
    set_function(t, function);
    t->namer = namer == Py_None ? NULL : Py_NewRef(namer);
    t->ports = ports == Py_None ? NULL : Py_NewRef(ports);
    t->port = port;
    t->size = size;
    t->device = device;
    t->reg = reg;
    t->flags = flags;
    t->write = write;
    return (PyObject *)t;
}

static int tap_traverse(Tap *t, visitproc visit, void *arg)
{
    Py_VISIT(t->recorder);
    Py_VISIT(t->callee);
    Py_VISIT(t->self);
    Py_VISIT(t->namer);
    return 0;
}

static int tap_clear(Tap *t)
{
    Py_CLEAR(t->recorder);
    Py_CLEAR(t->callee);
    Py_CLEAR(t->self);
    Py_CLEAR(t->namer);
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
    {"set_cpu", (PyCFunction)recorder_set_cpu, METH_VARARGS, "Where a vCPU keeps its RIP and the route of an access; None: not known."},
    {"enter", (PyCFunction)recorder_enter, METH_NOARGS, "An event begins: time stands still."},
    {"leave", (PyCFunction)recorder_leave, METH_VARARGS, "It is over: note it."},
    {"abandon", (PyCFunction)recorder_abandon, METH_NOARGS, "It is over and is not noted."},
    {"event", (PyCFunction)recorder_event, METH_VARARGS, "Note an event."},
    {"register", (PyCFunction)recorder_register, METH_O, "The number of a register's name."},
    {"open", (PyCFunction)recorder_open, METH_NOARGS, "A writer will call next()."},
    {"next", (PyCFunction)recorder_next, METH_O, "For the writer: wait so many seconds at most for a batch; None at the end."},
    {"flush", (PyCFunction)recorder_flush, METH_NOARGS, "Wait until the writer has written all records so far."},
    {"close", (PyCFunction)recorder_close, METH_NOARGS, "Let the writer come to the end."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef recorder_members[] = {
    {"registers", T_OBJECT, offsetof(Recorder, registers), READONLY, "Register names with their numbers."},
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
    count_ones();
    PyObject *m = PyModule_Create(&module);
    if (m && (PyModule_AddType(m, &RecorderType) < 0 || PyModule_AddType(m, &TapType) < 0 ||
              PyModule_AddType(m, &BatchType) < 0))
        Py_CLEAR(m);
    return m;
}
