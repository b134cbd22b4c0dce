"""Where functions' ranges lie: keeps the port space and the memory-mapped space in line with configuration.

Guests may put a range anywhere, over another device too. On a real bus both would answer; here the range that
comes second stays unmapped, its conflict is recorded, and it is tried again whenever another function moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from portvisor.ports import MmioSpace, PortConflictError, PortRange, PortSpace
from portvisor.ports.memory import MmioConflictError, MmioWindow

if TYPE_CHECKING:
    from portvisor.devices.pci.function import PciFunction


class RangeMapper:
    """Maps the ranges of all functions of a host."""

    def __init__(self, port_space: PortSpace, mmio: MmioSpace) -> None:
        self._port_space = port_space
        self._mmio = mmio
        self._windows: dict[PciFunction, dict[int, MmioWindow]] = {}
        self._conflicts: dict[PciFunction, tuple[str, ...]] = {}

    @property
    def conflicts(self) -> dict[PciFunction, tuple[str, ...]]:
        """What stays unmapped now, by function; each text names both owners."""
        return dict(self._conflicts)

    def conflicts_of(self, function: PciFunction) -> tuple[str, ...]:
        """What of one function stays unmapped now."""
        return self._conflicts.get(function, ())

    def update(self, function: PciFunction) -> None:
        """Bring one function's ranges in line with its state, then try those that were in conflict."""
        if self._apply(function):
            for other in [blocked for blocked in self._conflicts if blocked is not function]:
                self._apply(other)

    def remove(self, function: PciFunction) -> None:
        """Unmap a function's memory ranges and forget it."""
        for window in self._windows.pop(function, {}).values():
            self._mmio.detach(window)
        self._conflicts.pop(function, None)

    def _apply(self, function: PciFunction) -> bool:
        """Whether anything moved."""
        conflicts: list[str] = []
        moved = self._map_ports(function, conflicts)
        moved |= self._map_memory(function, conflicts)
        if conflicts:
            self._conflicts[function] = tuple(conflicts)
        else:
            self._conflicts.pop(function, None)
        return moved

    def _map_ports(self, function: PciFunction, conflicts: list[str]) -> bool:
        wanted = function.wanted_ports()
        before = tuple(function.ports)
        if wanted == before:
            return False
        try:
            self._port_space.remap(function, wanted)
        except PortConflictError:
            self._map_one_by_one(function, wanted, conflicts)
        return tuple(function.ports) != before

    def _map_one_by_one(self, function: PciFunction, wanted: tuple[PortRange, ...], conflicts: list[str]) -> None:
        accepted: list[PortRange] = []
        for candidate in wanted:
            try:
                self._port_space.remap(function, [*accepted, candidate])
                accepted.append(candidate)
            except PortConflictError as error:
                conflicts.append(str(error))
        self._port_space.remap(function, accepted)

    def _map_memory(self, function: PciFunction, conflicts: list[str]) -> bool:
        wanted = function.wanted_memory()
        windows = self._windows.setdefault(function, {})
        moved = False
        for number in [number for number, window in windows.items() if wanted.get(number) != window.base]:
            self._mmio.detach(windows.pop(number))
            moved = True
        for number, base in wanted.items():
            if number not in windows:
                try:
                    windows[number] = self._mmio.attach(
                        base, function.bars[number].size, function.bar_memory[number], function.address
                    )
                    moved = True
                except MmioConflictError as error:
                    conflicts.append(str(error))
        return moved
