"""The machines by name."""

from __future__ import annotations

from collections.abc import Callable

from portvisor.kvm.api import System
from portvisor.machines.pc import Pc, PcOptions
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions

_MAKERS: dict[str, Callable[[System], PcLike]] = {
    "pc": lambda system: Pc(system, PcOptions()),
    "poweredge": lambda system: PowerEdge(system, PowerEdgeOptions()),
}
MACHINES = tuple(_MAKERS)


def make_bare(name: str, system: System) -> PcLike:
    """A machine with nothing to boot: for its port map, for traces, for tests."""
    return _MAKERS[name](system)
