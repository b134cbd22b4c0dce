/* Alarm and kick: a thread that brings the guest to a stop in time. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_ALARM_H
#define PORTVISOR_SOFTCPU_ALARM_H

#include "softcpu_state.h"

#define NEVER INT64_MAX
#define TICK_NS INT64_C(2000000) /* how often signals and waiting threads are looked at while a guest spins */
enum { IDLE_TICKS = 100 };        /* ticks without a running guest after which the thread sleeps */

/* Any thread, and signal handlers: no Python, no locks. */
static void raise_pending(Cpu *c, unsigned bits)
{
    atomic_fetch_or(&c->pending, bits);
    __atomic_store_n(c->icount_high, 0xffff, __ATOMIC_SEQ_CST);
}

static void *alarm_thread(void *argument)
{
    Cpu *c = argument;
    int idle = 0;
    int64_t tick = monotonic_ns() + TICK_NS;

    prctl(PR_SET_TIMERSLACK, 1UL);
    pthread_mutex_lock(&c->lock);
    while (!c->quit) {
        int64_t now = monotonic_ns(), alarm = atomic_load(&c->alarm);
        if (alarm <= now && atomic_compare_exchange_strong(&c->alarm, &alarm, NEVER))
            raise_pending(c, PENDING_ALARM);
        if (tick <= now) {
            idle = atomic_load(&c->active) ? 0 : idle + 1;
            if (!idle)
                raise_pending(c, PENDING_TICK);
            tick = now + TICK_NS;
        }
        alarm = atomic_load(&c->alarm);
        int64_t until = idle < IDLE_TICKS && tick < alarm ? tick : alarm;
        atomic_store(&c->wake, until);
        if (atomic_load(&c->alarm) < until || (until == NEVER && atomic_load(&c->active))) {
            idle = 0; /* changed while we looked */
        } else if (until == NEVER) {
            pthread_cond_wait(&c->wake_up, &c->lock);
            idle = 0;
            tick = monotonic_ns() + TICK_NS;
        } else if (until > now) {
            struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
            pthread_cond_timedwait(&c->wake_up, &c->lock, &at);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void wake_alarm_thread(Cpu *c)
{
    pthread_mutex_lock(&c->lock);
    pthread_cond_signal(&c->wake_up);
    pthread_mutex_unlock(&c->lock);
}

static int start_alarm_thread(Cpu *c)
{
    sigset_t all, previous;
    if (c->thread_started)
        return 0;
    sigfillset(&all); /* Python's signal handlers belong to the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    int error = pthread_create(&c->thread, NULL, alarm_thread, c);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (error) {
        PyErr_Format(EngineError, "cannot start the alarm thread: %s", strerror(error));
        return -1;
    }
    c->thread_started = true;
    return 0;
}

static PyObject *cpu_set_alarm(Cpu *c, PyObject *host_time)
{
    int64_t time = NEVER;
    if (!c->uc)
        return require_stopped(c), NULL;
    if (host_time != Py_None) {
        int overflow;
        time = PyLong_AsLongLongAndOverflow(host_time, &overflow);
        if (time == -1 && PyErr_Occurred())
            return NULL;
        if (overflow > 0)
            time = NEVER;
    }
    if (start_alarm_thread(c))
        return NULL;
    atomic_store(&c->alarm, NEVER);
    atomic_fetch_and(&c->pending, ~(unsigned)PENDING_ALARM);
    if (time <= monotonic_ns()) {
        raise_pending(c, PENDING_ALARM);
    } else {
        atomic_store(&c->alarm, time);
        if (time < atomic_load(&c->wake))
            wake_alarm_thread(c);
    }
    Py_RETURN_NONE;
}

static PyObject *cpu_kick(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (c->uc)
        raise_pending(c, PENDING_KICK);
    Py_RETURN_NONE;
}

static PyObject *cpu_interrupt_changed(Cpu *c, PyObject *Py_UNUSED(ignored))
{
    if (c->uc)
        raise_pending(c, PENDING_IRQ);
    Py_RETURN_NONE;
}

#endif
