"""AHCI host bus adapter of a PCH: 00:1f.2 (SATA) and 00:11.4 (sSATA).

Source: AHCI 1.3.1; Intel C610 series PCH data sheet (330788), chapters 14 and 15.

| BAR | | |
|---|---|---|
| 0-3 | I/O 8, 4, 8, 4 | legacy command and control blocks: nothing answers there in AHCI mode |
| 4 | I/O 32 | 10 AINDX, 14 ADATA: a window on BAR 5; the bus master registers below read 0 |
| 5 | memory 2 KiB | generic host control at 0, port n at 100 + 80 n |

Registers are dwords; other accesses reach the bytes that they name. The serial ATA capability (A8) tells where
AINDX is. Not modelled: IDE mode, MSI (interrupts are INTx), command completion coalescing, enclosure management.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.devices.ahci import registers as r
from portvisor.devices.ahci.port import Port, PortState
from portvisor.devices.ide.drive import Drive, DriveState, Transport
from portvisor.devices.pci.bar import DWORD, Bar
from portvisor.devices.pci.config import PciId
from portvisor.devices.pci.function import PciFunction
from portvisor.ports import GuestMemory, Snapshot, SnapshotError

SATA_AHCI, SSATA_AHCI = PciId(0x8086, 0x8D02, 0x010601, revision=5), PciId(0x8086, 0x8D62, 0x010601, revision=5)
ICH9_AHCI = PciId(0x8086, 0x2922, 0x010601, revision=2)
ABAR, INDEX_BAR = 5, 4
ABAR_LENGTH = 0x800
PORTS_MAX = (ABAR_LENGTH - r.PORT_BASE) // r.PORT_LENGTH
AINDX, ADATA = 0x10, 0x14
AINDX_MASK = 0x7FC
LEGACY_SIZES = {0: 8, 1: 4, 2: 8, 3: 4, INDEX_BAR: 32}
MAP, MAP_AHCI, PCS = 0x90, 0x40, 0x92
"""Address map (SATA mode select 7:6 = 01) and port control and status (enable bits, present bits from 8)."""
CAPABILITY_SATA, SATA_CAPABILITY_OFFSET = 0x12, 0xA8
SATA_CAPABILITY = bytes((0x10, 0x00, AINDX // 4 << 4 | INDEX_BAR + 4, 0, 0, 0))
"""Revision 1.0; the index/data pair is in BAR 4 (code 8) at dword 4."""


@dataclass(frozen=True, slots=True)
class AhciAddress:
    """Hard-wired bases: (address, size) of BAR 0-4, and of BAR 5."""

    io: Mapping[int, tuple[int, int]]
    abar: int


class Ahci(PciFunction):
    """The adapter.

    Args:
        memory: guest memory.
        drives: one entry a port, None for an empty one; made with `Transport.SATA`.
        identity: which chip it is.
        address: hard-wires the BARs; None lets software place them.
        legacy_bars: also show BAR 0-3.

    Raises:
        ValueError: there is no port, or more than BAR 5 has room for, or a drive is for a cable.
    """

    ID: ClassVar[PciId] = SATA_AHCI
    CONFIG_REGISTERS: ClassVar = {MAP: "MAP", PCS: "PCS"}

    @dataclass
    class State(PciFunction.State):
        """Configuration space, global and port registers, and the drives' own states."""

        ghc: int = r.GHC_AE
        pending: int = 0
        """IS: ports with an interrupt."""
        index: int = 0
        ports: list[PortState] = field(default_factory=list)
        drives: list[DriveState | None] = field(default_factory=list)

    state: State

    def __init__(
        self,
        memory: GuestMemory,
        drives: Sequence[Drive | None],
        *,
        identity: PciId | None = None,
        address: AhciAddress | None = None,
        legacy_bars: bool = True,
        name: str = "ahci",
    ) -> None:
        super().__init__(bars=_bars(address, legacy_bars), identity=identity, interrupt_pin=1, name=name)
        self.drives = tuple(drives)
        if not 1 <= len(self.drives) <= PORTS_MAX:
            raise ValueError(f"{self.name}: {len(self.drives)} ports, 1 to {PORTS_MAX} are possible")
        if any(drive and drive.transport is not Transport.SATA for drive in self.drives):
            raise ValueError(f"{self.name}: a drive was not made with Transport.SATA")
        self._define_ports()
        self.add_capability(CAPABILITY_SATA, SATA_CAPABILITY, offset=SATA_CAPABILITY_OFFSET)
        self._memory = memory
        self._fresh_registers()
        self._power_on()

    def _define_ports(self) -> None:
        """MAP and PCS: AHCI mode, all ports enabled, and which have a drive."""
        ports = (1 << len(self.drives)) - 1
        present = sum(1 << number for number, drive in enumerate(self.drives) if drive)
        self.define(MAP, 2, MAP_AHCI)
        self.define(PCS, 2, (present << 8 | ports) & 0xFFFF, ports & 0xFF)

    # --- state ------------------------------------------------------------------------------------------

    def _fresh_registers(self) -> None:
        """Registers as after RESET#, for the ports and drives that there are."""
        state = self.state
        state.ghc, state.pending, state.index = r.GHC_AE, 0, 0
        state.ports = [PortState() for _ in self.drives]
        self._bind()

    def _share_states(self) -> None:
        """A drive gets a new state object with every hardware reset."""
        self.state.drives = [drive.state if drive else None for drive in self.drives]

    def _bind(self) -> None:
        self.ports_of_hba = tuple(
            Port(state, drive, self._memory, lambda: self.bus_master, self._update)
            for state, drive in zip(self.state.ports, self.drives, strict=True)
        )

    def _power_on(self) -> None:
        for port in self.ports_of_hba:
            port.power_on()
        self._share_states()
        self._update()

    def _hba_reset(self) -> None:
        """GHC.HR (10.4.3): everything but configuration space and the ports' addresses."""
        addresses = [(port.clb, port.fb) for port in self.state.ports]
        self._fresh_registers()
        for port, (clb, fb) in zip(self.state.ports, addresses, strict=True):
            port.clb, port.fb = clb, fb
        self._power_on()

    def reset(self) -> None:
        super().reset()
        self._fresh_registers()
        self._power_on()

    def snapshot(self) -> Snapshot:
        self._share_states()
        return super().snapshot()

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
        self._bind()
        self._update()
        super().restored()

    # --- interrupts -------------------------------------------------------------------------------------

    def _update(self) -> None:
        """IS latches every port with an enabled interrupt (10.7.2.1); a bit cannot be cleared before its cause."""
        state = self.state
        for number, port in enumerate(state.ports):
            if port.interrupts & port.enabled:
                state.pending |= 1 << number
        self.intx.set(1 if state.ghc & r.GHC_IE and state.pending else 0)

    def command_written(self) -> None:
        super().command_written()
        if self.bus_master:
            for port in self.ports_of_hba:
                port.process()
            self._update()

    # --- BARs -------------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        if bar not in (ABAR, INDEX_BAR):
            return (1 << 8 * size) - 1
        read = self._read_dword if bar == ABAR else self._read_index_bar
        shift = 8 * (offset & 3)
        value = read(offset & ~3) >> shift
        if shift + 8 * size > 32:
            value |= read((offset & ~3) + 4) << 32 - shift
        return value & (1 << 8 * size) - 1

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        if bar not in (ABAR, INDEX_BAR):
            return
        write = self._write_dword if bar == ABAR else self._write_index_bar
        shift = 8 * (offset & 3)
        lanes, value = ((1 << 8 * size) - 1) << shift, value << shift
        write(offset & ~3, value & lanes & DWORD, lanes & DWORD)
        if lanes > DWORD:
            write((offset & ~3) + 4, value >> 32, lanes >> 32)

    def _read_index_bar(self, offset: int) -> int:
        if offset == AINDX:
            return self.state.index
        return self._read_dword(self.state.index) if offset == ADATA else 0

    def _write_index_bar(self, offset: int, value: int, lanes: int) -> None:
        if offset == AINDX:
            self.state.index = (self.state.index & ~lanes | value) & AINDX_MASK
        elif offset == ADATA:
            self._write_dword(self.state.index, value, lanes)

    def bar_register_name(self, bar: int, offset: int, size: int, write: bool) -> str:
        place = offset & ~3
        if bar == ABAR:
            return _register_name(place)
        if bar != INDEX_BAR:
            return "legacy IDE"
        if place == ADATA:
            return f"ADATA {_register_name(self.state.index)}".rstrip()
        return "AINDX" if place == AINDX else "bus master"

    # --- registers ----------------------------------------------------------------------------------------

    def _read_dword(self, offset: int) -> int:
        if offset >= r.PORT_BASE:
            number, place = divmod(offset - r.PORT_BASE, r.PORT_LENGTH)
            return self.ports_of_hba[number].read(place) if number < len(self.drives) else 0
        values = {
            r.CAP: self._capabilities(),
            r.GHC: self.state.ghc,
            r.IS: self.state.pending,
            r.PI: (1 << len(self.drives)) - 1,
            r.VS: r.VERSION,
        }
        return values.get(offset, 0)

    def _capabilities(self) -> int:
        features = r.CAP_S64A | r.CAP_SNCQ | r.CAP_SCLO | r.CAP_SAM | r.CAP_PMD | r.CAP_ISS_GEN3 | r.CAP_NCS_32
        return features | len(self.drives) - 1

    def _write_dword(self, offset: int, value: int, lanes: int) -> None:
        """Write the bytes of a register that `lanes` selects; the others keep what they read as.

        Where a written 1 acts, the others count as 0.
        """
        if lanes != DWORD and not self._clears(offset):
            value |= self._read_dword(offset) & ~lanes
        if offset >= r.PORT_BASE:
            number, place = divmod(offset - r.PORT_BASE, r.PORT_LENGTH)
            if number < len(self.drives):
                self.ports_of_hba[number].write(place, value)
        elif offset == r.GHC:
            if value & r.GHC_HR:
                self._hba_reset()
            else:
                self.state.ghc = value & r.GHC_IE | r.GHC_AE
                self._update()
        elif offset == r.IS:
            self.state.pending &= ~value
            self._update()

    @staticmethod
    def _clears(offset: int) -> bool:
        """Registers where a one written acts, so that bytes not written must be zero."""
        place = (offset - r.PORT_BASE) % r.PORT_LENGTH if offset >= r.PORT_BASE else -1
        return offset == r.IS or place in (r.PX_IS, r.PX_SERR, r.PX_CI, r.PX_SACT)


def _register_name(offset: int) -> str:
    """Name of a register in BAR 5, "" if there is none."""
    if offset < r.PORT_BASE:
        return r.GLOBAL_NAMES.get(offset, "")
    number, place = divmod(offset - r.PORT_BASE, r.PORT_LENGTH)
    name = r.PORT_NAMES.get(place, "")
    return name.replace("Px", f"P{number}", 1)


def _bars(address: AhciAddress | None, legacy: bool) -> dict[int, Bar]:
    bars = {}
    for number, size in LEGACY_SIZES.items():
        if number != INDEX_BAR and not legacy:
            continue
        base = address.io[number][0] if address else 0
        bars[number] = Bar.io(size, address=base, fixed=address is not None)
    bars[ABAR] = Bar.memory(ABAR_LENGTH, address=address.abar if address else 0, fixed=address is not None)
    return bars
