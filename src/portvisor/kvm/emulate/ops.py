"""The operations table: all that the emulator knows of the vCPU, its memory and its ports.

The same cut as `struct x86_emulate_ops` in Linux's kvm_emulate.h, with memory and ports in blocks.
"""

from __future__ import annotations

from typing import Protocol

from portvisor.kvm.abi import Regs, Segment


class EmulateOps(Protocol):
    """What an engine supplies. Every memory operation takes linear addresses and goes through guest paging.

    A memory operation that the guest's paging forbids raises `GuestException` (#PF with error code and CR2).
    It may span pages, and must then have checked every page before it stores or returns anything.
    `size` is the operand size: the width of the single accesses, for memory where that matters (MMIO).
    """

    @property
    def regs(self) -> Regs:
        """The general registers. The emulator changes them in place, only when something is completed."""
        ...

    @property
    def cr0(self) -> int: ...

    @property
    def cr4(self) -> int: ...

    @property
    def efer(self) -> int: ...

    @property
    def cpl(self) -> int:
        """Current privilege level: 0 in real mode, 3 in virtual-8086 mode, else the DPL of SS."""
        ...

    def get_segment(self, name: str) -> Segment:
        """A segment register with its cache: cs, ds, es, fs, gs, ss or tr."""
        ...

    def get_dr(self, index: int) -> int:
        """A debug register (0-3, 7). Asked for only if CR4.DE is set."""
        ...

    def fetch(self, linear: int, length: int) -> bytes:
        """Instruction bytes. Never spans pages."""
        ...

    def read(self, linear: int, length: int, size: int) -> bytes:
        """A data read at the current privilege level."""
        ...

    def write(self, linear: int, data: bytes, size: int) -> None:
        """A data write at the current privilege level."""
        ...

    def probe(self, linear: int, length: int, write: bool) -> None:
        """Fault as a read or write would, but transfer nothing."""
        ...

    def read_std(self, linear: int, length: int) -> bytes:
        """An implicit supervisor read (the TSS), whatever the privilege level."""
        ...

    def pio_in(self, port: int, size: int, count: int) -> bytes | None:
        """`count` INs from one port, little endian, `size * count` bytes; None if nobody in here claims it."""
        ...

    def pio_out(self, port: int, size: int, data: bytes) -> bool:
        """`len(data) // size` OUTs to one port; False if nobody in here claims it."""
        ...

    def interrupt_pending(self) -> bool:
        """Whether a string instruction should stop after the current block.

        True if an interrupt or NMI can be delivered now, or the vCPU was kicked.
        """
        ...
