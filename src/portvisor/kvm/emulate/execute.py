"""The emulator: one I/O instruction at rIP, carried out over an operations table.

Order of events (Intel SDM vol. 3, 6.9; vol. 2, "IN", "INS", "OUT", "OUTS"): fetch faults, length, LOCK (#UD),
port permission, rCX = 0, source or destination, port. A string instruction proceeds in blocks: all elements that
lie in one page, inside the segment limit, before the offset wraps. Each block is one translation, one
`pio_in` or `pio_out` and one memory access; registers are exact after every block, and on a fault they tell how
many elements are complete.

Not modelled: protection keys, the VMware backdoor ports, VMX and SVM intercepts of a nested guest.
"""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.kvm.abi import KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT
from portvisor.kvm.emulate.assemble import disassemble
from portvisor.kvm.emulate.debug import io_breakpoints_hit
from portvisor.kvm.emulate.decode import MAX_LENGTH, Instruction, decode_cached
from portvisor.kvm.emulate.deviations import ARCHITECTURE, KVM, READ_FIRST, Deviations
from portvisor.kvm.emulate.elements import merge, reverse_elements
from portvisor.kvm.emulate.errors import (
    GuestException,
    InstructionTooLongError,
    ModeError,
    NotIoInstructionError,
    PendingIoError,
    TruncatedInstructionError,
    general_protection,
    undefined_opcode,
)
from portvisor.kvm.emulate.mode import CODE_BITS, PROT64, REAL, current_mode
from portvisor.kvm.emulate.ops import EmulateOps
from portvisor.kvm.emulate.permission import check_io_permission
from portvisor.kvm.emulate.segments import block_length, is_canonical, linear_address, linear_bits
from portvisor.kvm.emulate.trace import Step, decode_step, memory_step, port_step
from portvisor.kvm.emulate.x86 import (
    AC_VECTOR,
    CR0_AM,
    CR4_DE,
    DR6_BS,
    MASK16,
    MASK32,
    MASK64,
    PAGE_OFFSET,
    PAGE_SIZE,
    PF_VECTOR,
    RFLAGS_AC,
    RFLAGS_DF,
    RFLAGS_RF,
    RFLAGS_TF,
)

CONTINUE = 0
"""Done, or a string instruction that stopped between two elements: see `Emulator.finished`."""
UNHANDLEABLE = 1
"""Not an I/O instruction, or an impossible mode: see `Emulator.reason`."""
PROPAGATE_FAULT = 2
"""Deliver `Emulator.exception` to the guest."""
IO_NEEDED = 5
"""Nobody in here claims the port: serve `Emulator.io`, then call `Emulator.complete()`."""

RETURN_CODES = {
    CONTINUE: "CONTINUE",
    UNHANDLEABLE: "UNHANDLEABLE",
    PROPAGATE_FAULT: "PROPAGATE_FAULT",
    IO_NEEDED: "IO_NEEDED",
}

MAX_ELEMENTS = 4096
"""A `step()` stops after so many elements of a string: the caller's loop stays responsive."""
KVM_READ_AHEAD = 1024
"""Bytes of KVM's read-ahead buffer."""
KVM_RESTART_MASK = 0x3FF


@dataclass(slots=True)
class IoRequest:
    """The `io` member of `struct kvm_run`, with the data of an OUT."""

    direction: int
    """`abi.KVM_EXIT_IO_IN` or `KVM_EXIT_IO_OUT`."""
    size: int
    port: int
    count: int
    data: bytes = b""


class Emulator:
    """Executes I/O instructions for one vCPU.

    After `step()` or `complete()`: `finished`, `debug_trap`, and, by return code, `exception`, `io` or `reason`.

    Args:
        ops: the vCPU.
        kvm_compat: depart from the architecture wherever KVM does; see `deviations.DEVIATIONS`.
        read_first: INS reads the port before it looks at the destination, as KVM and the 80286 do.
        deviations: the switches one by one, instead of the two above.
        intel: REP with ECX = 0 and a 32-bit address size in 64-bit mode clears RCX 63:32, as on Intel's CPUs.
        steps: a list that receives what is done, step by step.
    """

    finished: bool
    """rIP has moved past the instruction. False after CONTINUE: a string stopped between elements; step again."""
    debug_trap: int
    """DR6 bits of a #DB to deliver after this (single step, I/O breakpoints); 0 for none."""
    exception: GuestException | None
    io: IoRequest | None
    reason: str

    __slots__ = (
        "_deviations",
        "_intel",
        "_linear_rip",
        "_mode",
        "_pending",
        "_traps",
        "_va_bits",
        "debug_trap",
        "exception",
        "finished",
        "io",
        "ops",
        "reason",
        "steps",
    )

    def __init__(
        self,
        ops: EmulateOps,
        *,
        kvm_compat: bool = False,
        read_first: bool = False,
        deviations: Deviations | None = None,
        intel: bool = False,
        steps: list[Step] | None = None,
    ) -> None:
        self.ops = ops
        self.steps = steps
        self._deviations = deviations or (KVM if kvm_compat else READ_FIRST if read_first else ARCHITECTURE)
        self._intel = intel
        self._mode = REAL
        self._pending: Instruction | None = None
        self._va_bits = 48
        self._linear_rip = 0
        self._traps = 0
        self._clear_outcome()

    def _clear_outcome(self) -> None:
        self.finished = False
        self.debug_trap = 0
        self.exception = None
        self.io = None
        self.reason = ""

    # --- entry points ---------------------------------------------------------------------------------
    def step(self, code: bytes | None = None) -> int:
        """Execute the instruction at rIP, or go on with a string instruction.

        Args:
            code: the bytes at rIP if the caller has them: nothing is fetched then, and no fetch can fault.

        Returns:
            CONTINUE, IO_NEEDED, PROPAGATE_FAULT or UNHANDLEABLE.

        Raises:
            PendingIoError: an exit waits for `complete()`.
        """
        if self._pending is not None:
            raise PendingIoError("I/O is pending: call complete() or cancel() before step()")
        self._clear_outcome()
        ops = self.ops
        regs = ops.regs
        try:
            mode = self._mode = current_mode(ops.cr0, ops.efer, regs.rflags, ops.get_segment("cs"))
            if mode == PROT64:
                self._va_bits = linear_bits(ops.cr4)
            instruction = self._fetch(mode) if code is None else decode_cached(code, CODE_BITS[mode])
            return self._execute(instruction)
        except GuestException as fault:
            return self._fault(fault)
        except InstructionTooLongError:
            return self._fault(general_protection(self._mode == REAL))
        except (NotIoInstructionError, TruncatedInstructionError, ModeError) as error:
            self.reason = str(error)
            return UNHANDLEABLE

    def complete(self, data: bytes = b"") -> int:
        """Finish what IO_NEEDED left open, and nothing more: a string with elements left needs another `step()`.

        Registers changed in between are respected: an INS stores no more elements than rCX now allows, at the
        present ES:rDI. If rIP was moved away, an IN is dropped.

        Args:
            data: what the port gave, `io.size * io.count` bytes; empty for an OUT.

        Returns:
            CONTINUE or PROPAGATE_FAULT (the destination of an INS faults now; elements not stored are lost).

        Raises:
            PendingIoError: nothing is pending.
            ValueError: the wrong number of bytes.
        """
        instruction, request = self._pending, self.io
        if instruction is None or request is None:
            raise PendingIoError("no I/O is pending")
        expected = 0 if instruction.out else request.size * request.count
        if len(data) != expected:
            raise ValueError(f"{expected} bytes of data are needed to complete this I/O, not {len(data)}")
        self._pending = None
        if instruction.out:
            self.io = None
            self.debug_trap = self._traps
            return CONTINUE
        self._clear_outcome()
        if self._current_linear_rip() != self._linear_rip:
            self.reason = "rIP was changed while the IN was pending"
            return CONTINUE
        try:
            return self._complete_ins(instruction, data) if instruction.string else self._load(instruction, data)
        except GuestException as fault:
            return self._fault(fault)

    def cancel(self) -> None:
        """Forget a pending exit, for example because the vCPU's state was replaced."""
        self._pending = None
        self._clear_outcome()

    # --- fetch ----------------------------------------------------------------------------------------
    def _fetch(self, mode: int) -> Instruction:
        """Fetch and decode at CS:rIP. Bytes beyond the last one needed are never the cause of a fault."""
        ops = self.ops
        offset = ops.regs.rip
        room = MAX_LENGTH
        if mode == PROT64:
            linear, mask = offset, MASK64
            if not is_canonical(linear, self._va_bits):
                raise general_protection()
        else:
            cs = ops.get_segment("cs")
            offset &= MASK32
            if offset > cs.limit:
                raise general_protection(mode == REAL)
            if cs.limit != MASK32:
                room = min(room, cs.limit - offset + 1)
            linear, mask = cs.base + offset & MASK32, MASK32
        chunk = ops.fetch(linear, min(room, PAGE_SIZE - (linear & PAGE_OFFSET)))
        try:
            return decode_cached(chunk, CODE_BITS[mode])
        except TruncatedInstructionError:
            if len(chunk) == room:
                raise general_protection(mode == REAL) from None
        following = linear + len(chunk) & mask
        if mode == PROT64 and not is_canonical(following, self._va_bits):
            raise general_protection()
        chunk += ops.fetch(following, room - len(chunk))
        try:
            return decode_cached(chunk, CODE_BITS[mode])
        except TruncatedInstructionError:
            raise general_protection(mode == REAL) from None

    def _current_linear_rip(self) -> int:
        rip = self.ops.regs.rip
        return rip if self._mode == PROT64 else self.ops.get_segment("cs").base + rip & MASK32

    # --- execution ------------------------------------------------------------------------------------
    def _execute(self, instruction: Instruction) -> int:
        ops = self.ops
        regs = ops.regs
        if self.steps is not None:
            self.steps.append(decode_step(instruction, disassemble(instruction)))
        if instruction.lock:
            raise undefined_opcode()
        port = regs.rdx & MASK16 if instruction.immediate is None else instruction.immediate
        check_io_permission(ops, self._mode, port, instruction.size, self._deviations, self.steps)
        self._traps = DR6_BS if regs.rflags & RFLAGS_TF else 0
        if instruction.repeat and not regs.rcx & instruction.address_mask:
            return self._nothing_to_do(instruction)
        if ops.cr4 & CR4_DE and not self._deviations.no_io_breakpoints:
            self._traps |= io_breakpoints_hit(ops.get_dr, port, instruction.size)
        if not instruction.string:
            return self._out(instruction, port) if instruction.out else self._in(instruction, port)
        if instruction.out:
            return self._outs(instruction, port)
        if self._deviations.read_ahead:
            return self._ins_ahead(instruction, port)
        return self._ins(instruction, port)

    def _nothing_to_do(self, instruction: Instruction) -> int:
        """REP with rCX = 0."""
        if self.steps is not None:
            self.steps.append(Step("count", "rCX is 0: no access", {"count": 0}))
        if self._intel and self._mode == PROT64 and instruction.address_size == 4:
            self.ops.regs.rcx = 0
        return self._finish(instruction)

    def _in(self, instruction: Instruction, port: int) -> int:
        ahead = instruction.rep_prefix and self._deviations.rep_in_reads_ahead
        count = self._read_ahead_count(instruction) if ahead else 1
        data = self._read_port(instruction, port, count)
        return IO_NEEDED if data is None else self._load(instruction, data)

    def _load(self, instruction: Instruction, data: bytes) -> int:
        """Put an IN's datum into AL, AX or EAX; EAX zero-extends into RAX."""
        regs = self.ops.regs
        size = instruction.size
        value = int.from_bytes(data[:size], "little")
        regs.rax = value if size == 4 else regs.rax & -(1 << 8 * size) | value
        return self._finish(instruction)

    def _out(self, instruction: Instruction, port: int) -> int:
        size = instruction.size
        data = (self.ops.regs.rax & (1 << 8 * size) - 1).to_bytes(size, "little")
        claimed = self.ops.pio_out(port, size, data)
        self._written(instruction, port, data, claimed)
        self._finish(instruction)
        return CONTINUE if claimed else IO_NEEDED

    # --- INS ------------------------------------------------------------------------------------------
    def _ins(self, instruction: Instruction, port: int) -> int:
        budget = 1 if self._traps else MAX_ELEMENTS
        while True:
            try:
                linear, count = self._destination(instruction, budget)
            except GuestException:
                if self._deviations.read_first and self._read_port(instruction, port, 1) is None:
                    return IO_NEEDED
                raise
            data = self._read_port(instruction, port, count)
            if data is None:
                return IO_NEEDED
            self._store(instruction, linear, count, data)
            budget -= count
            if self._string_over(instruction):
                return self._finish(instruction)
            if not budget or self.ops.interrupt_pending():
                return self._pause()

    def _complete_ins(self, instruction: Instruction, data: bytes) -> int:
        size = instruction.size
        if instruction.repeat:
            data = data[: size * (self.ops.regs.rcx & instruction.address_mask)]
        if self._deviations.read_ahead:
            self._store_ahead(instruction, data)
        else:
            while data:
                linear, count = self._destination(instruction, len(data) // size)
                self._store(instruction, linear, count, data[: size * count])
                data = data[size * count :]
        return self._finish(instruction) if self._string_over(instruction) else self._pause()

    def _destination(self, instruction: Instruction, budget: int) -> tuple[int, int]:
        """Check the next element of an INS for writing; its linear address, and how many form a block."""
        linear, count = self._block(instruction, "rdi", write=True, budget=budget)
        self.ops.probe(linear, instruction.size, True)
        if linear & instruction.size - 1:
            self._check_alignment()
        return linear, count

    def _store(self, instruction: Instruction, linear: int, count: int, data: bytes) -> None:
        """Write a checked block and step the registers."""
        size = instruction.size
        if self.ops.regs.rflags & RFLAGS_DF and count > 1:
            linear -= size * (count - 1)
            data = reverse_elements(data, size)
        self.ops.write(linear, data, size)
        if self.steps is not None:
            self.steps.append(memory_step("stored at", "es", linear, size, count, data))
        self._advance(instruction, "rdi", count)

    # --- INS as KVM does it ---------------------------------------------------------------------------
    def _read_ahead_count(self, instruction: Instruction) -> int:
        """Elements that KVM reads at once: it takes bytes left in the page for a number of elements."""
        regs = self.ops.regs
        in_page = regs.rdi & PAGE_OFFSET
        if not regs.rflags & RFLAGS_DF:
            in_page = PAGE_SIZE - in_page
        count = regs.rcx & instruction.address_mask if instruction.rep_prefix else 1
        return min(in_page, KVM_READ_AHEAD // instruction.size, count) or 1

    def _ins_ahead(self, instruction: Instruction, port: int) -> int:
        count = 1 if self._traps else self._read_ahead_count(instruction)
        data = self._read_port(instruction, port, count)
        if data is None:
            return IO_NEEDED
        self._store_ahead(instruction, data)
        return self._finish(instruction) if self._string_over(instruction) else self._pause()

    def _store_ahead(self, instruction: Instruction, data: bytes) -> None:
        """Store a batch: upwards as one operand, downwards element by element."""
        size = instruction.size
        step = len(data) if instruction.repeat and not self.ops.regs.rflags & RFLAGS_DF else size
        for start in range(0, len(data), step or size):
            self._store_operand(instruction, data[start : start + step])

    def _store_operand(self, instruction: Instruction, data: bytes) -> None:
        """Write an operand page by page: the first page's part stays if the second faults."""
        ops = self.ops
        size = instruction.size
        offset = ops.regs.rdi & instruction.address_mask
        linear, _, _ = linear_address(
            self._mode, "es", ops.get_segment("es"), offset, len(data), True, self._va_bits
        )
        first = PAGE_SIZE - (linear & PAGE_OFFSET)
        ops.write(linear, data[:first], size)
        if first < len(data):
            ops.write(linear + first & (MASK64 if self._mode == PROT64 else MASK32), data[first:], size)
        if self.steps is not None:
            self.steps.append(memory_step("stored at", "es", linear, size, len(data) // size, data))
        self._advance(instruction, "rdi", len(data) // size)

    # --- OUTS -----------------------------------------------------------------------------------------
    def _outs(self, instruction: Instruction, port: int) -> int:
        ops = self.ops
        single = self._deviations.outs_single
        budget = 1 if self._traps else MAX_ELEMENTS
        while True:
            linear, count = self._block(instruction, "rsi", write=False, budget=1 if single else budget)
            data = self._load_block(instruction, linear, count)
            claimed = ops.pio_out(port, instruction.size, data)
            self._advance(instruction, "rsi", count)
            self._written(instruction, port, data, claimed)
            budget -= count
            if self._string_over(instruction):
                self._finish(instruction)
            elif not claimed or not budget or self._outs_interrupted(instruction):
                self._pause()
            else:
                continue
            return CONTINUE if claimed else IO_NEEDED

    def _outs_interrupted(self, instruction: Instruction) -> bool:
        if self._deviations.outs_single:
            return not self.ops.regs.rcx & instruction.address_mask & KVM_RESTART_MASK
        return self.ops.interrupt_pending()

    def _load_block(self, instruction: Instruction, linear: int, count: int) -> bytes:
        """Read a block, in the order in which it goes to the port."""
        ops = self.ops
        size = instruction.size
        down = ops.regs.rflags & RFLAGS_DF
        start = linear - size * (count - 1) if down else linear
        if linear & size - 1 and self._alignment_armed():
            ops.probe(linear, size, False)
            self._check_alignment()
        try:
            data = ops.read(start, size * count, size)
        except GuestException as fault:
            if start == linear or fault.vector != PF_VECTOR:
                raise
            # The page was entered from above: the element that faults is the highest of the block.
            raise GuestException(PF_VECTOR, fault.error_code, linear) from fault
        if self.steps is not None:
            self.steps.append(memory_step("read at", instruction.segment, start, size, count, data))
        return reverse_elements(data, size) if down and count > 1 else data

    # --- what strings share ---------------------------------------------------------------------------
    def _block(self, instruction: Instruction, index: str, write: bool, budget: int) -> tuple[int, int]:
        """Segment checks of the next element; its linear address, and how many elements may go with it."""
        ops = self.ops
        regs = ops.regs
        mask = instruction.address_mask
        size = instruction.size
        name = instruction.segment
        offset = getattr(regs, index) & mask
        linear, low, high = linear_address(
            self._mode, name, ops.get_segment(name), offset, size, write, self._va_bits
        )
        remaining = min(regs.rcx & mask, budget) if instruction.repeat else 1
        down = bool(regs.rflags & RFLAGS_DF)
        return linear, block_length(linear, offset, low, high, size, mask, down, remaining)

    def _alignment_armed(self) -> bool:
        ops = self.ops
        return bool(
            ops.regs.rflags & RFLAGS_AC
            and ops.cr0 & CR0_AM
            and ops.cpl == 3
            and not self._deviations.no_alignment_check
        )

    def _check_alignment(self) -> None:
        """The operand is misaligned: #AC(0) if that matters now."""
        if self._alignment_armed():
            raise GuestException(AC_VECTOR, 0)

    def _advance(self, instruction: Instruction, index: str, count: int) -> None:
        """Step rSI or rDI, and rCX, by whole elements, at the address size."""
        regs = self.ops.regs
        delta = instruction.size * count
        if regs.rflags & RFLAGS_DF:
            delta = -delta
        old = getattr(regs, index)
        setattr(regs, index, merge(old, old + delta, instruction.address_mask))
        if instruction.repeat:
            regs.rcx = merge(regs.rcx, regs.rcx - count, instruction.address_mask)

    def _string_over(self, instruction: Instruction) -> bool:
        if not instruction.repeat:
            return True
        return not self._deviations.ends_on_reentry and not self.ops.regs.rcx & instruction.address_mask

    # --- ports and endings ----------------------------------------------------------------------------
    def _read_port(self, instruction: Instruction, port: int, count: int) -> bytes | None:
        """Ask the ports in here; None and a pending request if none of them answers."""
        data = self.ops.pio_in(port, instruction.size, count)
        if data is None:
            self.io = IoRequest(KVM_EXIT_IO_IN, instruction.size, port, count)
            self._pending = instruction
            self._linear_rip = self._current_linear_rip()
        elif len(data) != instruction.size * count:
            raise ValueError(f"pio_in of port {port:#x} gave {len(data)} bytes for {count} x {instruction.size}")
        if self.steps is not None:
            self.steps.append(port_step(KVM_EXIT_IO_IN, port, instruction.size, count, data, data is not None))
        return data

    def _written(self, instruction: Instruction, port: int, data: bytes, claimed: bool) -> None:
        """After an OUT; the exit comes when the registers are written back, as in KVM."""
        size = instruction.size
        count = len(data) // size
        if self.steps is not None:
            self.steps.append(port_step(KVM_EXIT_IO_OUT, port, size, count, data, claimed))
        if not claimed:
            self.io = IoRequest(KVM_EXIT_IO_OUT, size, port, count, data)
            self._pending = instruction

    def _finish(self, instruction: Instruction) -> int:
        regs = self.ops.regs
        rip = regs.rip + instruction.length
        regs.rip = rip & (MASK64 if self._mode == PROT64 else MASK32)
        regs.rflags &= ~RFLAGS_RF
        self.finished = True
        self.debug_trap = 0 if self._pending else self._traps
        if self.steps is not None:
            self.steps.append(Step("done", f"rIP = {regs.rip:#x}", {"rip": regs.rip, "debug_trap": self._traps}))
        return CONTINUE

    def _pause(self) -> int:
        """Between two elements of a string: rIP stays, RF is set in what an interrupt would push."""
        regs = self.ops.regs
        regs.rflags |= RFLAGS_RF
        self.debug_trap = 0 if self._pending else self._traps
        if self.steps is not None:
            text = f"stopped between elements, rCX = {regs.rcx:#x}; rIP stays at the instruction"
            self.steps.append(Step("pause", text, {"rcx": regs.rcx, "debug_trap": self._traps}))
        return CONTINUE

    def _fault(self, fault: GuestException) -> int:
        """rIP stays; RF is set, so that RFLAGS is what the delivery of a fault pushes."""
        self.ops.regs.rflags |= RFLAGS_RF
        self._pending = None
        self.io = None
        self.exception = fault
        if self.steps is not None:
            data = {"vector": fault.vector, "error_code": fault.error_code, "cr2": fault.cr2}
            self.steps.append(Step("fault", f"{fault}: rIP stays at the instruction", data))
        return PROPAGATE_FAULT
