"""A legacy ATA channel: two drives behind ports 1F0-1F7 and 3F6 (IRQ 14) or 170-177 and 376 (IRQ 15).

Source: T13/1410D ATA-6, clauses 7 (registers), 9.2 (software reset), 9.16 (one device on the cable).

    offset  read              write
    0       Data (16 or 32 bits; a byte access takes a whole word and uses its low byte)
    1       Error             Features
    2       Sector Count; a packet device's Interrupt Reason
    3       LBA Low; Sector Number
    4       LBA Mid; Cylinder Low; a packet device's Byte Count Low
    5       LBA High; Cylinder High; a packet device's Byte Count High
    6       Device; Drive/Head
    7       Status            Command
    8       Alternate Status  Device Control            (the control block's one port)

Both drives take every register write; the selected one answers reads. If only device 0 exists it answers for
device 1 with Status 00. Where nobody answers, the bus floats high but for DD7, which the host pulls down
(7.2.1): 7F, so never BSY.

Not modelled: a bus master (drives are made with `Transport.PIO`), overlap, the Drive Address register 3F7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portvisor.devices.ide.drive import DATA_IN, DATA_OUT, Drive, DriveState
from portvisor.devices.ide.registers import (
    COMMAND,
    DATA,
    DEVICE,
    DEVICE_DEV,
    FEATURES,
    HOB,
    NIEN,
    SRST,
)
from portvisor.ports import Device, IrqLine, PortRange, Snapshot, SnapshotError

CONTROL = 8
EXECUTE_DEVICE_DIAGNOSTIC = 0x90
FLOATING = 0x7F
FLOATING_WORD = b"\x7f\xff"

READ_NAMES = (
    "Data",
    "Error",
    "Sector Count",
    "LBA Low",
    "LBA Mid",
    "LBA High",
    "Device",
    "Status",
    "Alternate Status",
)
WRITE_NAMES = {FEATURES: "Features", COMMAND: "Command", CONTROL: "Device Control"}


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """Where a channel sits in a PC."""

    command: int
    control: int
    irq: int
    name: str


PRIMARY = ChannelAddress(0x1F0, 0x3F6, 14, "ide0")
SECONDARY = ChannelAddress(0x170, 0x376, 15, "ide1")


class IdeChannel(Device):
    """Two drives, or one, or none, on one cable.

    Args:
        irq: the channel's interrupt line (INTRQ, gated by nIEN).
        master: device 0.
        slave: device 1.
        address: ports and name.
    """

    @dataclass
    class State:
        """Device Control, the selected device, and the drives' own states."""

        control: int = 0
        selected: int = 0
        drives: list[DriveState | None] = field(default_factory=lambda: [None, None])

    state: State

    def __init__(
        self,
        irq: IrqLine,
        master: Drive | None = None,
        slave: Drive | None = None,
        address: ChannelAddress = PRIMARY,
    ) -> None:
        self.name = address.name
        self.ports = (
            PortRange(address.command, 8, (1, 2, 4), address.name),
            PortRange(address.control, 1, (1,), address.name, CONTROL),
        )
        self.drives: Sequence[Drive | None] = (master, slave)
        self._irq = irq
        super().__init__()
        self._share_states()
        self._reader: tuple[Callable[[], int], ...] = (
            lambda: self._take(2)[0],
            self._read_error,
            *(self._register_reader(register) for register in range(2, COMMAND)),
            self._read_status,
            self._alternate_status,
        )

    def _share_states(self) -> None:
        self.state.drives = [drive.state if drive else None for drive in self.drives]

    def _update_irq(self) -> None:
        """INTRQ is driven by the selected drive only, and only while nIEN is clear (7.8)."""
        state = self.state
        drive = self.drives[state.selected]
        self._irq.set(drive is not None and drive.state.interrupt and not state.control & NIEN)

    def reset(self) -> None:
        for drive in self.drives:
            if drive:
                drive.power_on()
        super().reset()
        self._share_states()
        self._update_irq()

    def restore(self, snapshot: Snapshot) -> None:
        """Put a snapshot back; what is on the media is not part of it.

        Raises:
            SnapshotError: it is of another device or version, or other drives were attached.
        """
        if isinstance(snapshot.state, self.State):
            saved = [type(state) for state in snapshot.state.drives]
            if saved != [drive.State if drive else type(None) for drive in self.drives]:
                raise SnapshotError(f"{self.name}: snapshot was taken with other drives attached")
        super().restore(snapshot)

    def restored(self) -> None:
        for drive, state in zip(self.drives, self.state.drives, strict=True):
            if drive and state:
                drive.adopt(state)
        self._update_irq()

    def register_name(self, offset: int, size: int, write: bool) -> str:
        name = WRITE_NAMES.get(offset) if write else None
        return name or READ_NAMES[offset]

    # --- reads --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if size == 1:
            return self._reader[offset]()
        if offset == DATA:
            return int.from_bytes(self._take(size), "little")
        return sum(self._reader[offset + index]() << 8 * index for index in range(size))

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        if offset == DATA and size > 1:
            return self._take(size * count)
        return super().read_block(offset, size, count)

    def _take(self, length: int) -> bytes:
        """`length` bytes (even) from the data register."""
        drive = self.drives[self.state.selected]
        data = drive.read_data(length) if drive else b""
        if data and drive and drive.state.position:  # still inside the block: nothing else has changed
            return data
        while drive and len(data) < length and drive.state.phase == DATA_IN:
            data += drive.read_data(length - len(data))
        self._update_irq()
        missing = length - len(data)
        return data + FLOATING_WORD * (missing // 2) if missing else data

    def _answering(self) -> Drive | None:
        """The drive that a register read reaches: device 0 answers for an absent device 1 (9.16.1)."""
        return self.drives[self.state.selected] or self.drives[0]

    def _read_error(self) -> int:
        drive = self._answering()
        return drive.state.registers.error if drive else FLOATING

    def _register_reader(self, register: int) -> Callable[[], int]:
        def read_register() -> int:
            drive = self._answering()
            if drive is None:
                return FLOATING
            registers = drive.state.registers
            previous = self.state.control & HOB and register != DEVICE
            return (registers.previous if previous else registers.current)[register]

        return read_register

    def _read_status(self) -> int:
        """Status; reading it is what takes the interrupt back (7.15)."""
        drive = self.drives[self.state.selected]
        if drive:
            drive.state.interrupt = False
            self._irq.set(0)
        return self._alternate_status()

    def _alternate_status(self) -> int:
        drive = self.drives[self.state.selected]
        if drive:
            return drive.state.registers.status
        return 0 if self.drives[0] else FLOATING

    # --- writes -------------------------------------------------------------------------------------

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == DATA:
            self._put(value.to_bytes(max(size, 2), "little"))
            return
        for index in range(size):
            self._write_register(offset + index, value >> 8 * index & 0xFF)

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        if offset == DATA and size > 1:
            self._put(data)
        else:
            super().write_block(offset, size, data)

    def _put(self, data: bytes) -> None:
        drive = self.drives[self.state.selected]
        if drive is None:
            return
        left = memoryview(data)
        while left and drive.state.phase == DATA_OUT:
            left = left[drive.write_data(left) :]
        self._update_irq()

    def _write_register(self, offset: int, value: int) -> None:
        if offset == CONTROL:
            self._write_control(value)
            return
        self.state.control &= ~HOB
        if self.state.control & SRST:
            return
        if offset == COMMAND:
            self._write_command(value)
            return
        for drive in self.drives:
            if drive:
                drive.state.registers.put(offset, value)
        if offset == DEVICE:
            self.state.selected = 1 if value & DEVICE_DEV else 0
            self._update_irq()

    def _write_command(self, value: int) -> None:
        if value == EXECUTE_DEVICE_DIAGNOSTIC:
            self._diagnose()
        elif drive := self.drives[self.state.selected]:
            drive.execute(value)
        self._update_irq()

    def _diagnose(self) -> None:
        """Both drives carry it out; device 0 is selected and interrupts for both (8.9)."""
        for drive in self.drives:
            if drive:
                drive.execute(EXECUTE_DEVICE_DIAGNOSTIC)
        if slave := self.drives[1]:
            slave.state.interrupt = False
        self.state.selected = 0

    def _write_control(self, value: int) -> None:
        before, self.state.control = self.state.control, value
        if value & SRST and not before & SRST:
            self._each(Drive.hold_reset)
        elif before & SRST and not value & SRST:
            self._each(Drive.software_reset)
            self.state.selected = 0
        self._update_irq()

    def _each(self, action: Callable[[Drive], None]) -> None:
        for drive in self.drives:
            if drive:
                action(drive)
