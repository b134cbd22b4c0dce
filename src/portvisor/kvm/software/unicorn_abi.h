/* Unicorn 2.1.4, Linux x86-64 wheel: the layout and the functions that softcpu.c depends on.
 *
 * Offsets in bytes. `self_test` in softcpu.c compares them with what the library does.
 */
#ifndef PORTVISOR_UNICORN_ABI_H
#define PORTVISOR_UNICORN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { /* struct uc_struct */
    UC_CPU = 440,
    UC_L1_MAP = 736, /* void **l1_map; size_t; then int v_l1_size, v_l1_shift, v_l2_levels */
    UC_V_L1_SIZE = 752,
    UC_V_L1_SHIFT = 756,
    UC_V_L2_LEVELS = 760,
    UC_TCG_CTX = 768,
    UC_STOP_REQUEST = 1389,
    UC_NO_EXIT_REQUEST = 2034,
};
enum { L2_ENTRIES_BITS = 10, PAGE_DESC_SIZE = 24 }; /* of the tree under l1_map; PageDesc starts with first_tb */

enum { /* CPUState */
    CS_EXIT_REQUEST = 21,
    CS_CFLAGS_NEXT_TB = 24,
    CS_INTERRUPT_REQUEST = 28,
    CS_ENV_PTR = 296,
    CS_ICOUNT_DECR_PTR = 304,
    CS_TB_JMP_CACHE = 312,
    CS_BREAKPOINTS = 33096, /* the first of the list */
    CS_MEM_IO_PC = 33144,
    CS_HALTED = 33176,
    CS_EXCEPTION_INDEX = 33184,
    CS_CLASS = 33200,
    CS_ENV = 35408,
};
enum { CLASS_TLB_FILL = 72, CLASS_DEBUG_EXCP_HANDLER = 120, CLASS_CPU_EXEC_INTERRUPT = 144 }; /* CPUClass */
enum { EXCP_HLT = 0x10001, CPU_INTERRUPT_HARD = 2, ONE_INSTRUCTION = 1 /* cflags */ };

enum { /* CPUX86State */
    ENV_TLB = -64, /* mask and table for each MMU index */
    ENV_ICOUNT_DECR = -16,
    ENV_REGS = 0,
    ENV_EIP = 128,
    ENV_EFLAGS = 136, /* without the arithmetic flags and DF while code runs */
    ENV_DF = 172,
    ENV_HFLAGS = 176,
    ENV_SEGS = 184,
    ENV_CR = 424,
    ENV_EFER = 592,
    ENV_SYSENTER_CS = 4800,
    ENV_SYSENTER_ESP = 4808,
    ENV_SYSENTER_EIP = 4816,
    ENV_STAR = 4824,
    ENV_LSTAR = 4840,
    ENV_CSTAR = 4848,
    ENV_FMASK = 4856,
    ENV_TSC_AUX = 4896,
    ENV_ERROR_CODE = 5384,
    ENV_DR = 5400,
    ENV_BREAKPOINTS = 5464, /* host pointers for dr0 to dr3 */
    ENV_OLD_EXCEPTION = 5496,
    ENV_V_TPR = 5556, /* CR8 */
    ENV_END_RESET_FIELDS = 5568,
    ENV_SIZE = 5720, /* as far as the eleven uint64_t words of CPUID features that matter */
};
typedef struct { uint32_t selector; uint64_t base; uint32_t limit, flags; } SegmentCache;

enum { /* hflags */
    HF_CPL = 3,
    HF_INHIBIT_IRQ = 1 << 3, /* shadow of STI and MOV SS */
    HF_CS32 = 1 << 4,
    HF_SS32 = 1 << 5,
    HF_ADDSEG = 1 << 6,
    HF_LMA = 1 << 14,
    HF_CS64 = 1 << 15,
    HF_SMAP = 1 << 23,
    HF_IOBPT = 1 << 24, /* an I/O breakpoint is armed */
};

enum { MMU_LOAD, MMU_STORE, MMU_FETCH };
enum { MMU_KSMAP, MMU_USER, MMU_KNOSMAP };
enum { TLB_DISCARD_WRITE = 0x40, TLB_NOTDIRTY = 0x400, TLB_INVALID = 0x800 };
typedef struct { uint64_t addr[3] /* by MMU_* */, paddr; uintptr_t addend; uint64_t padding[3]; } TlbEntry;
typedef struct { uint64_t pc; uint16_t icount, size; } UcBlock; /* uc_tb */
enum { TB_PC = 0, TB_ICOUNT = 22, TB_CFLAGS = 24, TB_CODE = 32, TB_CODE_SIZE = 40 }; /* TranslationBlock */
enum { CF_COUNT_MASK = 0x7fff, CF_NOCACHE = 1 << 16 };
enum { BP_GDB = 0x10 };
typedef struct Breakpoint { uint64_t pc; int flags; struct Breakpoint *next; void *previous; } Breakpoint;

/* The public API's constants. */
enum { UC_ARCH_X86 = 4, UC_MODE_64 = 8, UC_PROT_READ = 1, UC_PROT_WRITE = 2, UC_PROT_EXEC = 4 };
enum { UC_X86_REG_RIP = 41, UC_X86_REG_CR2 = 52 };
enum {
    UC_HOOK_INTR = 1 << 0,
    UC_HOOK_INSN = 1 << 1,
    UC_HOOK_MEM_WRITE_PROT = 1 << 8,
    UC_HOOK_INSN_INVALID = 1 << 14,
    UC_HOOK_EDGE_GENERATED = 1 << 15,
};
enum { /* UC_X86_INS_* */
    INS_CPUID = 113,
    INS_IN = 218,
    INS_OUT = 500,
    INS_RDTSC = 608,
    INS_RDTSCP = 609,
    INS_SYSCALL = 699,
    INS_SYSENTER = 700,
};
enum { UC_CTL_USE_EXITS = 4, UC_CTL_CPU_MODEL = 7, UC_CTL_TCG_BUFFER_SIZE = 13 };
#define UC_CTL_WRITE(type, arguments) ((type) | (arguments) << 26 | 1 << 30)

/* X(result, name here, symbol, arguments) */
#define UNICORN_FUNCTIONS(X) \
    X(const char *, uc_strerror, uc_strerror, (int)) \
    X(int, uc_open, uc_open, (int, int, void **)) \
    X(int, uc_close, uc_close, (void *)) \
    X(int, uc_ctl, uc_ctl, (void *, int, ...)) \
    X(int, uc_reg_read, uc_reg_read, (void *, int, void *)) \
    X(int, uc_reg_write, uc_reg_write, (void *, int, const void *)) \
    X(int, uc_emu_start, uc_emu_start, (void *, uint64_t, uint64_t, uint64_t, size_t)) \
    X(int, uc_hook_add, uc_hook_add, (void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...)) \
    X(int, uc_mem_map_ptr, uc_mem_map_ptr, (void *, uint64_t, size_t, uint32_t, void *)) \
    X(int, uc_mmio_map, uc_mmio_map, (void *, uint64_t, size_t, void *, void *, void *, void *)) \
    X(int, uc_mem_unmap, uc_mem_unmap, (void *, uint64_t, size_t)) \
    X(void, cpu_reset, cpu_reset, (void *)) \
    X(void, cpu_loop_exit, cpu_loop_exit_x86_64, (void *)) \
    X(void, cpu_loop_exit_noexc, cpu_loop_exit_noexc_x86_64, (void *)) \
    X(bool, cpu_restore_state, cpu_restore_state_x86_64, (void *, uintptr_t, bool)) \
    X(void, do_interrupt, x86_cpu_do_interrupt_x86_64, (void *)) \
    X(void, do_interrupt_hard, do_interrupt_x86_hardirq_x86_64, (void *, int, int)) \
    X(void, raise_exception, raise_exception_err_x86_64, (void *, int, int)) \
    X(void, check_iob, helper_check_iob_x86_64, (void *, uint32_t)) \
    X(void, check_iow, helper_check_iow_x86_64, (void *, uint32_t)) \
    X(void, check_iol, helper_check_iol_x86_64, (void *, uint32_t)) \
    X(uint64_t, read_eflags, helper_read_eflags_x86_64, (void *)) \
    X(void, write_eflags, helper_write_eflags_x86_64, (void *, uint64_t, uint32_t)) \
    X(void, set_a20, x86_cpu_set_a20_x86_64, (void *, int)) \
    X(void, update_dr7, cpu_x86_update_dr7_x86_64, (void *, uint32_t)) \
    X(void, breakpoint_handler, breakpoint_handler_x86_64, (void *)) \
    X(bool, tlb_fill, x86_cpu_tlb_fill_x86_64, (void *, uint64_t, int, int, int, bool, uintptr_t)) \
    X(void *, tlb_vaddr_to_host, tlb_vaddr_to_host_x86_64, (void *, uint64_t, int, int)) \
    X(void, tlb_flush, tlb_flush_x86_64, (void *)) \
    X(void, tlb_reset_dirty, tlb_reset_dirty_x86_64, (void *, uintptr_t, uintptr_t)) \
    X(void, tb_flush, tb_flush_x86_64, (void *)) \
    X(void, tb_phys_invalidate, tb_phys_invalidate_x86_64, (void *, void *, uint64_t)) \
    X(void, tb_invalidate, tb_invalidate_phys_range_x86_64, (void *, uint64_t, uint64_t)) \
    X(uint64_t, ram_addr_from_host, qemu_ram_addr_from_host_x86_64, (void *, void *))

#endif
