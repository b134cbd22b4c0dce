"""What can go wrong: for the guest (`GuestException`), and for the program that uses the library."""

from __future__ import annotations

from portvisor.kvm.emulate.x86 import GP_VECTOR, PF_VECTOR, UD_VECTOR, VECTOR_NAMES


class GuestException(Exception):  # noqa: N818 - the architecture's word
    """An exception to deliver to the guest: vector, error code, and CR2 for a page fault.

    `error_code` is None where none is pushed: #UD always, and every vector in real mode.
    """

    def __init__(self, vector: int, error_code: int | None = 0, cr2: int | None = None) -> None:
        super().__init__(vector, error_code, cr2)
        self.vector = vector
        self.error_code = error_code
        self.cr2 = cr2

    @property
    def name(self) -> str:
        """#GP, #PF, ..."""
        return VECTOR_NAMES.get(self.vector, f"#{self.vector}")

    def __str__(self) -> str:
        code = "" if self.error_code is None else f"({self.error_code:#x})" if self.error_code else "(0)"
        return f"{self.name}{code}" + (f" at {self.cr2:#x}" if self.cr2 is not None else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuestException) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


def general_protection(real_mode: bool = False) -> GuestException:
    """#GP(0), or vector 13 without an error code in real mode."""
    return GuestException(GP_VECTOR, None if real_mode else 0)


def undefined_opcode() -> GuestException:
    """#UD."""
    return GuestException(UD_VECTOR, None)


def page_fault(error_code: int, linear: int) -> GuestException:
    """#PF with the faulting linear address for CR2."""
    return GuestException(PF_VECTOR, error_code, linear)


class EmulateError(ValueError):
    """The caller's input makes no sense. The text is one line for the user."""


class DecodeError(EmulateError):
    """The bytes are not an I/O instruction."""


class TruncatedInstructionError(DecodeError):
    """The bytes end inside an instruction."""


class InstructionTooLongError(DecodeError):
    """More than 15 bytes: #GP(0) for the guest."""


class NotIoInstructionError(DecodeError):
    """Another instruction."""


class ModeError(EmulateError):
    """CR0, EFER, RFLAGS and CS do not describe a mode that a CPU can be in."""


class AssemblyError(EmulateError):
    """The text is not an I/O instruction of this mode."""


class PendingIoError(RuntimeError):
    """`step()` while an exit waits for `complete()`, or `complete()` without one."""
