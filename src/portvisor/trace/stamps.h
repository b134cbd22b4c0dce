/* Time as the compiled taps take it, and the value of a port that nobody answers. */
#ifndef PORTVISOR_STAMPS_H
#define PORTVISOR_STAMPS_H

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static int64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* A cheap stamp for how long a handler took. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return monotonic();
#endif
}

/* All bits of an access of 1, 2 or 4 bytes. */
static inline uint32_t ones(long size)
{
    return size < 4 ? (UINT32_C(1) << 8 * size) - 1 : UINT32_MAX;
}

#endif
