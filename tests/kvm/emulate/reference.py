"""The instructions once more, as plainly as can be: one element at a time, pages by name, nothing clever."""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.kvm.emulate import Instruction

PAGE = 0x1000
M32, M64 = (1 << 32) - 1, (1 << 64) - 1


class FaultError(Exception):
    """The exception's text."""


@dataclass
class World:
    """Start state and, after `run`, the end."""

    mode: str
    regs: dict[str, int]
    memory: bytearray
    """Physical memory; beyond it reads give FF and writes are lost."""
    pages: dict[int, str]
    """Linear page -> kind, where it is not "rw"; empty without paging."""
    paged: bool
    cpl: int
    iopl: int
    closed: set[int]
    limits: dict[str, int]
    """Segment limits outside 64-bit mode."""
    down: bool
    taken: int = 0
    given: bytes = b""
    fault: str = ""
    elements: int = 0

    # --- what the instruction may do ------------------------------------------------------------------
    def check_port(self, port: int, size: int) -> None:
        if self.mode == "real" or (self.mode != "vm86" and self.cpl <= self.iopl):
            return
        for at in range(port, port + size):
            if at > 0xFFFF or at in self.closed:
                raise FaultError("#GP(0)")

    def check_segment(self, name: str, offset: int, size: int) -> None:
        for at in range(offset, offset + size):
            if self.mode == "long":
                bad = not (at & M64 < 1 << 47 or at & M64 >= M64 + 1 - (1 << 47))
            else:
                bad = at > self.limits[name] and self.limits[name] != M32
            if bad:
                code = "" if self.mode == "real" else "(0)"
                raise FaultError(f"{'#SS' if name == 'ss' else '#GP'}{code}")

    def check_pages(self, linear: int, size: int, write: bool) -> None:
        if not self.paged:
            return
        user = self.cpl == 3
        wrap = M64 if self.mode == "long" else M32
        for at in range(linear, linear + size):
            page = at & wrap & -PAGE
            kind = self.pages.get(page, "rw") if page < 0x80000 else "none"
            allowed = kind != "none" and not (user and kind.startswith("super"))
            if allowed and write and kind in ("ro", "super-ro"):
                allowed = not user  # CR0.WP is clear
            if not allowed:
                code = (kind != "none") | write << 1 | user << 2
                where = linear if page == linear & wrap & -PAGE else page
                raise FaultError(f"#PF({code:#x}) at {where:#x}" if code else f"#PF(0) at {where:#x}")

    # --- execution ------------------------------------------------------------------------------------
    def run(self, instruction: Instruction) -> None:
        try:
            self.execute(instruction)
        except FaultError as fault:
            self.fault = str(fault)

    def execute(self, instruction: Instruction) -> None:
        if instruction.lock:
            raise FaultError("#UD")
        regs = self.regs
        port = regs["rdx"] & 0xFFFF if instruction.immediate is None else instruction.immediate
        self.check_port(port, instruction.size)
        if not instruction.string:
            self.transfer_accumulator(instruction)
        elif not instruction.repeat:
            self.transfer_element(instruction)
        else:
            while regs["rcx"] & instruction.address_mask:
                self.transfer_element(instruction)
                self.step("rcx", -1, instruction.address_mask)
        regs["rip"] += instruction.length

    def transfer_accumulator(self, instruction: Instruction) -> None:
        size = instruction.size
        mask = (1 << 8 * size) - 1
        if instruction.out:
            self.given += (self.regs["rax"] & mask).to_bytes(size, "little")
            return
        value = int.from_bytes(self.take(size), "little")
        self.regs["rax"] = value if size == 4 else self.regs["rax"] & ~mask | value

    def transfer_element(self, instruction: Instruction) -> None:
        size = instruction.size
        index = "rsi" if instruction.out else "rdi"
        linear = self.regs[index] & instruction.address_mask
        self.check_segment(instruction.segment, linear, size)
        self.check_pages(linear, size, not instruction.out)
        wrap = M64 if self.mode == "long" else M32
        places = [linear + at & wrap for at in range(size)]
        if instruction.out:
            self.given += bytes(self.memory[at] if at < len(self.memory) else 0xFF for at in places)
        else:
            for at, byte in zip(places, self.take(size), strict=True):
                if at < len(self.memory):
                    self.memory[at] = byte
        self.elements += 1
        self.step(index, -size if self.down else size, instruction.address_mask)

    def step(self, name: str, delta: int, mask: int) -> None:
        old = self.regs[name]
        new = old + delta & mask
        self.regs[name] = old & ~0xFFFF | new if mask == 0xFFFF else new

    def take(self, length: int) -> bytes:
        data = bytes((self.taken + index + 1) & 0xFF for index in range(length))
        self.taken += length
        return data
