"""Two Intel 8259A interrupt controllers in cascade, with the edge/level control registers of a PC chipset.

Source: Intel 8259A data sheet (231468); ELCR and the alias ports: Intel PCH data sheet, "8259 Interrupt
Controllers (PIC)" and "Interrupt Registers (LPC I/F)".

Registers (offset: port, name)
    0: 20   ICW1/OCW2/OCW3 (write), IRR/ISR/poll (read) of the master
    1: 21   ICW2-ICW4 in the initialization sequence, else OCW1 = IMR, of the master
    2: A0   as 20, of the slave
    3: A1   as 21, of the slave
    4: 4D0  ELCR1, IRQ 0-7: 1 = level
    5: 4D1  ELCR2, IRQ 8-15

Rules worth knowing
    * An edge-sensed request needs its input to stay high until it is acknowledged; if the input falls before,
      the request is gone, and an INTA cycle that finds none delivers level 7 without an in-service bit.
    * INT stays low until the initialization sequence of the chip is complete.
    * The slave's INT falls in its INTA cycle, so that its next request is a new edge on the master's IR2.

Not modelled: the MCS-80/85 call sequence (ICW4 uPM = 0 is treated as 8086 mode), buffered mode, and more
slaves than the one on IR2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from portvisor.ports import Device, IrqLine, PortRange

# ICW1
ICW1_IC4 = 0x01
ICW1_SNGL = 0x02
ICW1_LTIM = 0x08
ICW1_SELECT = 0x10
# ICW2
ICW2_BASE = 0xF8
# ICW3 of a slave
ICW3_ID = 0x07
# ICW4
ICW4_AEOI = 0x02
ICW4_SFNM = 0x10
# OCW2
OCW2_LEVEL = 0x07
OCW2_COMMAND = 0xE0
OCW2_CLEAR_ROTATE_AEOI = 0x00
OCW2_EOI = 0x20
OCW2_SPECIFIC_EOI = 0x60
OCW2_SET_ROTATE_AEOI = 0x80
OCW2_ROTATE_EOI = 0xA0
OCW2_SET_PRIORITY = 0xC0
OCW2_ROTATE_SPECIFIC_EOI = 0xE0
# OCW3
OCW3_RIS = 0x01
OCW3_RR = 0x02
OCW3_POLL = 0x04
OCW3_SELECT = 0x08
OCW3_SMM = 0x20
OCW3_ESMM = 0x40
# Poll byte
POLL_REQUEST = 0x80

CASCADE = 2
"""The master's input that the slave's INT is wired to, and so the slave's ID."""
SPURIOUS = 7
"""Level delivered when an INTA cycle finds no request."""
OPEN_BUS = 0xFF

MASTER_DATA, SLAVE, SLAVE_DATA, ELCR1, ELCR2 = 1, 2, 3, 4, 5
ELCR_WRITABLE = (0xF8, 0xDE)
"""IRQ 0, 1, 2, 8 and 13 are always edge-sensed (PCH, ELCR1 and ELCR2)."""

PIC1_ALIASES = (0x24, 0x28, 0x2C, 0x30, 0x34, 0x38, 0x3C)
PIC2_ALIASES = (0xA4, 0xA8, 0xAC, 0xB0, 0xB4, 0xB8, 0xBC)


@dataclass
class PicState:
    """Everything that one 8259A remembers."""

    ready: bool = False
    """The initialization sequence is complete."""
    expected_icw: int = 0
    """The ICW (2-4) that the next write to A0 = 1 is; 0 outside the initialization sequence."""
    icw1: int = 0
    vector_base: int = 0
    icw3: int = 0
    icw4: int = 0
    lines: int = 0
    """Levels of IR7-IR0."""
    edges: int = 0
    """Edge sense latches: inputs that rose, are still high and have not been acknowledged."""
    elcr: int = 0
    level: int = 0
    """Inputs sensed by level: ELCR, or all with LTIM."""
    imr: int = 0
    isr: int = 0
    lowest: int = 7
    """The level with the lowest priority; the next one has the highest."""
    rotate_aeoi: bool = False
    special_mask: bool = False
    read_isr: bool = False
    poll: bool = False


class Pic:
    """One 8259A: its registers and its priority logic. `PicPair` wires two of them."""

    __slots__ = ("cascade", "elcr_mask", "state")

    def __init__(self, state: PicState, elcr_mask: int, cascade: int) -> None:
        self.state = state
        self.elcr_mask = elcr_mask
        self.cascade = cascade
        """Mask of the inputs that a slave may be on (master), 0 for a slave."""

    def set_line(self, bit: int, level: int) -> None:
        """Drive one input; `bit` is its mask."""
        state = self.state
        if level:
            if not state.lines & bit:
                state.lines |= bit
                state.edges |= bit & ~state.level
        else:
            state.lines &= ~bit
            state.edges &= ~bit

    def irr(self) -> int:
        """Interrupt request register, unmasked."""
        state = self.state
        return state.edges | state.lines & state.level

    def int_output(self) -> int:
        """Level of INT: 1 if a request beats all that is in service."""
        return 0 if self._winner() is None else 1

    def _winner(self) -> int | None:
        """Level of the request to acknowledge, or None."""
        state = self.state
        request = (state.edges | state.lines & state.level) & ~state.imr
        if not request or not state.ready:
            return None
        shift = (state.lowest + 1) & 7
        request = _highest(request, shift)
        busy = state.isr & ~state.imr if state.special_mask else state.isr
        if busy:
            busy = _highest(busy, shift)
            level = (request.bit_length() - 1 + shift) & 7
            nested = state.icw4 & ICW4_SFNM and self.cascade >> level & 1
            if request > busy or (request == busy and not nested):
                return None
        return (request.bit_length() - 1 + shift) & 7

    def acknowledge(self) -> int | None:
        """The first INTA pulse (or the read of a poll): the level that goes into service, None if none asks."""
        level = self._winner()
        if level is None:
            return None
        state = self.state
        state.edges &= ~(1 << level)
        if not state.icw4 & ICW4_AEOI:
            state.isr |= 1 << level
        elif state.rotate_aeoi:
            state.lowest = level
        return level

    def vector(self, level: int | None) -> int:
        """The byte of the second INTA pulse."""
        return self.state.vector_base | (SPURIOUS if level is None else level)

    # --- registers ------------------------------------------------------------------------------------

    def read(self, data: int) -> int:
        """A read with A0 = `data`."""
        state = self.state
        if state.poll:
            state.poll = False
            level = self.acknowledge()
            return 0 if level is None else POLL_REQUEST | level
        if data:
            return state.imr
        return state.isr if state.read_isr else self.irr()

    def write_command(self, value: int) -> None:
        """A write with A0 = 0."""
        if value & ICW1_SELECT:
            self._write_icw1(value)
        elif value & OCW3_SELECT:
            self._write_ocw3(value)
        else:
            self._write_ocw2(value)

    def write_data(self, value: int) -> None:
        """A write with A0 = 1."""
        state = self.state
        if state.expected_icw == 0:
            state.imr = value
        elif state.expected_icw == 2:
            state.vector_base = value & ICW2_BASE
            self._expect(4 if state.icw1 & ICW1_SNGL else 3)
        elif state.expected_icw == 3:
            state.icw3 = value
            self._expect(4)
        else:
            state.icw4 = value
            self._initialized()

    def write_elcr(self, value: int) -> None:
        """A write to the edge/level control register."""
        self.state.elcr = value & self.elcr_mask
        self._set_sensing()

    def _write_icw1(self, value: int) -> None:
        state = self.state
        state.ready = False
        state.icw1 = value
        state.icw3 = ICW3_ID
        state.icw4 = 0
        state.edges = state.imr = state.isr = 0
        state.lowest = 7
        state.rotate_aeoi = state.special_mask = state.read_isr = state.poll = False
        state.expected_icw = 2
        self._set_sensing()

    def _expect(self, icw: int) -> None:
        if icw == 4 and not self.state.icw1 & ICW1_IC4:
            self._initialized()
        else:
            self.state.expected_icw = icw

    def _initialized(self) -> None:
        self.state.expected_icw = 0
        self.state.ready = True

    def _set_sensing(self) -> None:
        state = self.state
        state.level = 0xFF if state.icw1 & ICW1_LTIM else state.elcr
        state.edges &= ~state.level

    def _write_ocw2(self, value: int) -> None:
        state = self.state
        level = value & OCW2_LEVEL
        command = value & OCW2_COMMAND
        if command in (OCW2_EOI, OCW2_ROTATE_EOI):
            self._end_highest(rotate=command == OCW2_ROTATE_EOI)
        elif command == OCW2_SPECIFIC_EOI:
            state.isr &= ~(1 << level)
        elif command == OCW2_ROTATE_SPECIFIC_EOI:
            state.isr &= ~(1 << level)
            state.lowest = level
        elif command == OCW2_SET_PRIORITY:
            state.lowest = level
        elif command in (OCW2_SET_ROTATE_AEOI, OCW2_CLEAR_ROTATE_AEOI):
            state.rotate_aeoi = command == OCW2_SET_ROTATE_AEOI

    def _end_highest(self, *, rotate: bool) -> None:
        """Non-specific EOI. In special mask mode it leaves masked levels in service."""
        state = self.state
        busy = state.isr & ~state.imr if state.special_mask else state.isr
        if busy:
            shift = (state.lowest + 1) & 7
            level = (_highest(busy, shift).bit_length() - 1 + shift) & 7
            state.isr &= ~(1 << level)
            if rotate:
                state.lowest = level

    def _write_ocw3(self, value: int) -> None:
        state = self.state
        if value & OCW3_ESMM:
            state.special_mask = bool(value & OCW3_SMM)
        if value & OCW3_POLL:
            state.poll = True
        elif value & OCW3_RR:
            state.read_isr = bool(value & OCW3_RIS)


def _highest(levels: int, shift: int) -> int:
    """The bit of highest priority, rotated so that bit 0 is the highest priority there is."""
    rotated = (levels >> shift | levels << (8 - shift)) & 0xFF
    return rotated & -rotated


class PicPair(Device):
    """The PC's two 8259A: IRQ 0-7 on the master, IRQ 8-15 on the slave, whose INT is the master's IR2.

    Args:
        intr: the CPU's INTR pin; follows the master's INT.
        aliases: also answer at the ports where a PCH repeats 20-21 and A0-A1.
    """

    name = "pic"

    REGISTERS: ClassVar[dict[int, str]] = {
        0: "PIC1 OCW2/OCW3",
        MASTER_DATA: "PIC1 OCW1 (IMR)",
        SLAVE: "PIC2 OCW2/OCW3",
        SLAVE_DATA: "PIC2 OCW1 (IMR)",
        ELCR1: "ELCR1",
        ELCR2: "ELCR2",
    }

    @dataclass
    class State:
        """Both chips."""

        master: PicState = field(default_factory=PicState)
        slave: PicState = field(default_factory=PicState)

    state: State

    def __init__(self, intr: IrqLine, *, aliases: bool = False) -> None:
        super().__init__()
        self.intr = intr
        self._master = Pic(self.state.master, ELCR_WRITABLE[0], 1 << CASCADE)
        self._slave = Pic(self.state.slave, ELCR_WRITABLE[1], 0)
        self._inputs = {irq: IrqLine(self._sink(irq), f"IRQ{irq}") for irq in range(16) if irq != CASCADE}
        self.ports = _port_ranges(aliases)

    def _sink(self, irq: int) -> Callable[[int], None]:
        return partial(self._set_input, self._master if irq < 8 else self._slave, 1 << (irq & 7))

    # --- wires ------------------------------------------------------------------------------------------

    def input(self, irq: int) -> IrqLine:
        """The wire to one input; share it between devices with `SharedIrq`.

        Raises:
            ValueError: no such input, or it is IRQ 2, which the slave's INT drives.
        """
        if irq not in self._inputs:
            raise ValueError(f"IRQ {irq}: the PIC pair has inputs 0-15 without 2 (cascade)")
        return self._inputs[irq]

    def _set_input(self, chip: Pic, bit: int, level: int) -> None:
        chip.set_line(bit, level)
        self._update(chip)

    def _update(self, chip: Pic) -> None:
        """Something changed in `chip`: bring the cascade wire (if it is the slave) and INTR in line."""
        if chip is self._slave:
            self._master.set_line(1 << CASCADE, chip.int_output())
        self.intr.set(self._master.int_output())

    @property
    def pending(self) -> bool:
        """Level of INTR."""
        return self.intr.level != 0

    def acknowledge(self) -> int:
        """The INTA cycle: the vector that the CPU reads from the data bus.

        Without a request it is level 7 of the chip that answers, and that chip sets no in-service bit.
        """
        level = self._master.acknowledge()
        from_slave = level == CASCADE and self._has_slave()
        vector = self._slave_vector() if from_slave else self._master.vector(level)
        self._update(self._slave if from_slave else self._master)
        return vector

    def _has_slave(self) -> bool:
        state = self.state.master
        return not state.icw1 & ICW1_SNGL and bool(state.icw3 >> CASCADE & 1)

    def _slave_vector(self) -> int:
        self._master.set_line(1 << CASCADE, 0)
        slave = self.state.slave
        if slave.icw3 & ICW3_ID != CASCADE:
            return OPEN_BUS
        return self._slave.vector(self._slave.acknowledge())

    # --- registers --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset == ELCR1:
            return self.state.master.elcr
        if offset == ELCR2:
            return self.state.slave.elcr
        chip = self._master if offset < SLAVE else self._slave
        if not chip.state.poll:
            return chip.read(offset & 1)
        value = chip.read(offset & 1)
        if chip is self._slave:
            self._master.set_line(1 << CASCADE, 0)
        self._update(chip)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        chip = self._master if offset < SLAVE or offset == ELCR1 else self._slave
        if offset >= ELCR1:
            chip.write_elcr(value)
        elif offset & 1:
            chip.write_data(value)
        else:
            chip.write_command(value)
        self._update(chip)

    # --- life -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Neither chip raises INT until it is initialized; the inputs keep the levels they are driven to."""
        super().reset()
        self._bind()
        for irq, line in self._inputs.items():
            if line.level:
                chip = self.state.master if irq < 8 else self.state.slave
                chip.lines |= 1 << (irq & 7)
        self._update(self._slave)

    def restored(self) -> None:
        self._bind()
        for irq, line in self._inputs.items():
            chip = self.state.master if irq < 8 else self.state.slave
            line.level = chip.lines >> (irq & 7) & 1
        self.intr.set(self._master.int_output())

    def _bind(self) -> None:
        self._master.state = self.state.master
        self._slave.state = self.state.slave


def _port_ranges(aliases: bool) -> tuple[PortRange, ...]:
    pic1 = PortRange(0x20, 2, name="pic1")
    pic2 = PortRange(0xA0, 2, name="pic2", offset=SLAVE)
    ranges = [pic1, pic2, PortRange(0x4D0, 2, name="elcr", offset=ELCR1)]
    if aliases:
        ranges += [pic1.at(base) for base in PIC1_ALIASES]
        ranges += [pic2.at(base) for base in PIC2_ALIASES]
    return tuple(ranges)
