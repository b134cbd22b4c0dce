/* Errors of Python functions that are asked on the side of an access, and must not disturb it. */
#ifndef PORTVISOR_INTERRUPT_H
#define PORTVISOR_INTERRUPT_H

#include <Python.h>

/* Drop the error that is set, if there is one; `asked` is reported with it, or NULL: nothing is. A Ctrl-C that came
 * in between is no error of theirs: it comes again, at a place that may raise. */
static void drop_error(PyObject *asked)
{
    if (!PyErr_Occurred())
        return;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_SetInterrupt();
    else if (asked)
        PyErr_WriteUnraisable(asked);
    PyErr_Clear();
}

#endif
