/* The processor object, its macros, and what every part uses. Part of softcpu.c. */
#ifndef PORTVISOR_SOFTCPU_STATE_H
#define PORTVISOR_SOFTCPU_STATE_H

#include "unicorn_abi.h"

#define DECLARE(result, name, symbol, arguments) result(*name) arguments;
static struct { UNICORN_FUNCTIONS(DECLARE) } U;
static void *library; /* loaded once, never unloaded */

/* --- the architecture and KVM's ABI -------------------------------------------------------------------------- */

enum { PAGE = 4096 };
#define PAGE_OF(address) ((address) & ~UINT64_C(0xfff))
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R11 = 11 }; /* order of encoding, and of env->regs */
enum { ES, CS, SS, DS, FS, GS };
enum { FL_TF = 1 << 8, FL_IF = 1 << 9, FL_IOPL_SHIFT = 12, FL_RF = 1 << 16, FL_VM = 1 << 17, FL_AC = 1 << 18 };
enum { EFER_SCE = 1 };
enum { EXC_UD = 6, EXC_GP = 13 };
enum { /* in SegmentCache.flags */
    DESC_RW = 1 << 9, /* data: writable; code: readable */
    DESC_EXPAND_DOWN = 1 << 10,
    DESC_CODE = 1 << 11,
    DESC_P = 1 << 15,
};
enum { FLAT_CODE = 0xc09b00, FLAT_CODE_64 = 0xa09b00, FLAT_DATA = 0xc09300 };

enum { /* linux/kvm.h: exit reasons, and ours beyond them */
    EXIT_IO = 2, EXIT_HLT = 5, EXIT_MMIO = 6, EXIT_IRQ_WINDOW_OPEN = 7, EXIT_SHUTDOWN = 8, EXIT_INTR = 10,
    EXIT_INTERNAL_ERROR = 17, EXIT_STRING_IO = 1000,
};
enum { /* struct kvm_run */
    RUN_REQUEST_INTERRUPT_WINDOW = 0, RUN_IMMEDIATE_EXIT = 1, RUN_EXIT_REASON = 8, RUN_READY_FOR_INJECTION = 12,
    RUN_IF_FLAG = 13, RUN_FLAGS = 14, RUN_CR8 = 16, RUN_UNION = 32, RUN_MMIO_DATA = 40, RUN_SYNC_RIP = 432,
    PIO_DATA = PAGE,
    RUN_SIZE = 3 * PAGE,
};
enum { INTERNAL_ERROR_EMULATION = 1, CPUID_SIGNIFICANT_INDEX = 1 };
typedef struct { uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3]; } KvmCpuid;

/* --- the processor object ------------------------------------------------------------------------------------ */

typedef struct { /* RAM or ROM of the guest */
    bool used, readonly;
    uint64_t gpa, size, ram; /* ram: Unicorn's ram_addr_t of the first byte */
    uint8_t *host;
    uint8_t *protected; /* per page: stores through every TLB entry are checked for translated code */
    Py_buffer view;
} Slot;

typedef struct { /* input: an INS; size: of a string instruction */
    bool string, input, rep, lock;
    int size, address_bits, segment;
} Instruction;

/* An access that an instruction has made already, should the instruction start over. */
typedef struct {
    enum { PORT_READ, PORT_WRITE, MEMORY_READ, MEMORY_WRITE } kind;
    unsigned size;
    uint64_t address, value;
} Access;

enum { MAX_SLOTS = 64, MAX_REPLAY = 80 }; /* FXSAVE makes 64 accesses */
enum { /* Cpu.pending: why to come out of translated code at the next block */
    PENDING_IRQ = 1, PENDING_KICK = 2, PENDING_ALARM = 4, PENDING_TICK = 8, PENDING_STOP = 16,
    PENDING_LEAVE = PENDING_KICK | PENDING_ALARM | PENDING_STOP,
};

typedef struct {
    PyObject_HEAD
    void *uc;
    char *cs, *env;        /* Unicorn's CPUState and CPUX86State */
    uint16_t *icount_high; /* nonzero: come out of translated code at the next block */
    atomic_uint pending;
    bool running;
    int reason;         /* why the guest was left; 0 while it runs */
    PyObject *error[3]; /* an exception on its way out of run() */
    uint8_t *run;       /* struct kvm_run */
    Py_buffer run_view;
    struct {
        Access done[MAX_REPLAY];
        int count, next;      /* next: the first that has not been repeated yet */
        uint32_t elements;    /* of the block that the last access stands for */
        bool answer_expected; /* user space gives the last access its value */
        uint64_t rip;
    } replay; /* see softcpu_leave.h */
    Breakpoint intercept; /* see softcpu_intercept.h */
    uint64_t intercept_block;
    PyObject *tables[2][3], *read_block, *write_block, *failed; /* port space: reads and writes by size >> 1 */
    PyObject *io_bus_write;                                     /* offered the writes to io_bus_ports first */
    uint8_t io_bus_ports[0x10000 / 8];
    PyObject *bus_read, *bus_write, *source, *acknowledge, *tsc_source;
    int queued_vector, exception, error_code;
    KvmCpuid *cpuid;
    int cpuid_count;
    uint64_t tsc_khz;
    int64_t tsc_start; /* host time at which the TSC was 0 */
    Slot slots[MAX_SLOTS];
    pthread_t thread; /* the alarm thread */
    pthread_mutex_t lock;
    pthread_cond_t wake_up;
    bool thread_started, quit;
    _Atomic int64_t alarm, wake;
    atomic_bool active;
} Cpu;

#define U8(base, offset) (*(uint8_t *)((char *)(base) + (offset)))
#define U16(base, offset) (*(uint16_t *)((char *)(base) + (offset)))
#define U32(base, offset) (*(uint32_t *)((char *)(base) + (offset)))
#define I32(base, offset) (*(int32_t *)((char *)(base) + (offset)))
#define U64(base, offset) (*(uint64_t *)((char *)(base) + (offset)))
#define PTR(base, offset) (*(void **)((char *)(base) + (offset)))
#define REG(c, n) U64((c)->env, ENV_REGS + 8 * (n))
#define SEG(c, n) ((SegmentCache *)((c)->env + ENV_SEGS) + (n))
#define HFLAGS(c) U32((c)->env, ENV_HFLAGS)
#define EFLAGS(c) U64((c)->env, ENV_EFLAGS)

static _Thread_local Cpu *current; /* whose guest this thread executes */
static PyObject *size_object[9], *name_pending, *EngineError;

static uint32_t ones(int size)
{
    return 0xffffffffu >> (32 - 8 * size);
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static uint64_t linear_rip(Cpu *c)
{
    uint64_t rip = SEG(c, CS)->base + U64(c->env, ENV_EIP);
    return HFLAGS(c) & HF_CS64 ? rip : (uint32_t)rip;
}

static int require_stopped(Cpu *c)
{
    if (c->uc && !c->running)
        return 0;
    PyErr_SetString(EngineError, c->uc ? "the virtual CPU is running" : "the virtual CPU is closed");
    return -1;
}

#endif
