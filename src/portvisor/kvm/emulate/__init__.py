"""The I/O instructions: decode, permission, execution over an operations table, completion after an exit.

Usable without any engine. `Emulator` executes; `EmulateOps` is what it needs of a vCPU; `MemoryOps` is a ready
one; `explain` tells in words what an instruction does; `DEVIATIONS` lists where KVM differs.
"""

from portvisor.kvm.emulate.assemble import assemble, disassemble
from portvisor.kvm.emulate.decode import Instruction, decode
from portvisor.kvm.emulate.deviations import ARCHITECTURE, DEVIATIONS, KVM, READ_FIRST, Deviation, Deviations
from portvisor.kvm.emulate.errors import (
    AssemblyError,
    DecodeError,
    EmulateError,
    GuestException,
    InstructionTooLongError,
    ModeError,
    NotIoInstructionError,
    PendingIoError,
    TruncatedInstructionError,
)
from portvisor.kvm.emulate.execute import (
    CONTINUE,
    IO_NEEDED,
    PROPAGATE_FAULT,
    RETURN_CODES,
    UNHANDLEABLE,
    Emulator,
    IoRequest,
)
from portvisor.kvm.emulate.explain import Explanation, explain
from portvisor.kvm.emulate.memory_ops import FlatMemory, MemoryOps
from portvisor.kvm.emulate.mode import Mode, current_mode
from portvisor.kvm.emulate.ops import EmulateOps
from portvisor.kvm.emulate.paging import Paging
from portvisor.kvm.emulate.permission import check_io_permission
from portvisor.kvm.emulate.state import MODE_NAMES, build_tss, initial_state, write_identity_tables
from portvisor.kvm.emulate.trace import Step

__all__ = [
    "ARCHITECTURE",
    "CONTINUE",
    "DEVIATIONS",
    "IO_NEEDED",
    "KVM",
    "MODE_NAMES",
    "PROPAGATE_FAULT",
    "READ_FIRST",
    "RETURN_CODES",
    "UNHANDLEABLE",
    "AssemblyError",
    "DecodeError",
    "Deviation",
    "Deviations",
    "EmulateError",
    "EmulateOps",
    "Emulator",
    "Explanation",
    "FlatMemory",
    "GuestException",
    "Instruction",
    "InstructionTooLongError",
    "IoRequest",
    "MemoryOps",
    "Mode",
    "ModeError",
    "NotIoInstructionError",
    "Paging",
    "PendingIoError",
    "Step",
    "TruncatedInstructionError",
    "assemble",
    "build_tss",
    "check_io_permission",
    "current_mode",
    "decode",
    "disassemble",
    "explain",
    "initial_state",
    "write_identity_tables",
]
