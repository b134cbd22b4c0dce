"""Where KVM's emulator (Linux 6.12) departs from the architecture, as one table.

The emulator follows the architecture. With `kvm_compat=True` it does what the column `kvm` says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Deviations:
    """Switches; all off is the architecture. `DEVIATIONS` says what each does."""

    rep_in_reads_ahead: bool = False
    read_ahead: bool = False
    tss_limit_first_byte: bool = False
    tss_fault_is_gp: bool = False
    tss_type_unchecked: bool = False
    read_first: bool = False
    outs_single: bool = False
    ends_on_reentry: bool = False
    no_alignment_check: bool = False
    no_io_breakpoints: bool = False


ARCHITECTURE = Deviations()
READ_FIRST = Deviations(read_first=True)
KVM = Deviations(**{field.name: True for field in fields(Deviations)})


@dataclass(frozen=True, slots=True)
class Deviation:
    """A row of the table."""

    name: str
    switch: str
    """The field of `Deviations` that turns it on."""
    architecture: str
    kvm: str
    label: str = ""
    """Its number in the list of KVM's defects, if it is one."""


DEVIATIONS = (
    Deviation(
        "rep prefix of IN",
        "rep_in_reads_ahead",
        "REP before IN is ignored: one access.",
        "The port is read as often as REP INS would read ahead; the first datum is used, the rest is lost.",
        "K1",
    ),
    Deviation(
        "read-ahead over the page end",
        "read_ahead",
        "INS never reads more elements than it can store.",
        "The bytes left in rDI's page are taken for a number of elements, so a batch of words or dwords runs "
        "into the next page; if that one faults, no progress is recorded and the data is lost.",
        "K2",
    ),
    Deviation(
        "read-ahead over the segment limit",
        "read_ahead",
        "Elements inside the limit, or before the offset wraps, are completed before the fault.",
        "The batch is checked as one operand: a fault although its first elements fit; the data is lost.",
        "K3",
    ),
    Deviation(
        "second byte of the I/O bitmap",
        "tss_limit_first_byte",
        "Both bytes that are read lie inside the TSS limit, else #GP(0).",
        "Only the first byte is compared with the limit.",
        "K4",
    ),
    Deviation(
        "page fault on the TSS",
        "tss_fault_is_gp",
        "A page fault while the TSS is read is delivered as #PF.",
        "It becomes #GP(0).",
        "K5",
    ),
    Deviation(
        "type of the TSS",
        "tss_type_unchecked",
        "Only a TSS of type 9 or B has an I/O bitmap, else #GP(0).",
        "The type is not looked at.",
    ),
    Deviation(
        "order of INS",
        "read_first",
        "The destination is checked before the port is read, so that no datum is lost.",
        "The port is read first, as on the 80286; a fault loses the datum.",
    ),
    Deviation(
        "operand across two pages",
        "read_ahead",
        "Stored whole or not at all.",
        "The part in the first page is stored before the second page is looked at.",
    ),
    Deviation(
        "size of an INS block",
        "read_ahead",
        "A block ends with the page or the segment.",
        "A block holds at most 1024 bytes, and INS goes back to the run loop after each.",
    ),
    Deviation(
        "count of OUTS",
        "outs_single",
        "OUTS hands over a block with its count.",
        "One element at a time; back to the run loop whenever rCX is a multiple of 1024.",
    ),
    Deviation(
        "end of a REP string",
        "ends_on_reentry",
        "The last element ends the instruction.",
        "It leaves rCX = 0 and rIP at the instruction, RF set; the next entry finds nothing to do and ends it.",
    ),
    Deviation(
        "alignment check",
        "no_alignment_check",
        "A misaligned memory operand at CPL 3 with CR0.AM and RFLAGS.AC set is #AC(0).",
        "No #AC.",
    ),
    Deviation(
        "I/O breakpoints",
        "no_io_breakpoints",
        "With CR4.DE set an I/O breakpoint in DR7 traps after the access.",
        "They are ignored.",
    ),
)
"""Every known difference."""
