"""Guest-linear to guest-physical addresses for whoever only looks: nothing is set in the guest's tables."""

from __future__ import annotations

from portvisor.kvm.abi import Sregs
from portvisor.kvm.emulate.errors import GuestException
from portvisor.kvm.emulate.paging import ACCESS_AC, Paging, ReadPhysical
from portvisor.kvm.emulate.x86 import EFER_LMA

__all__ = ["EFER_LMA", "ReadPhysical", "translate"]


def translate(sregs: Sregs, linear: int, read: ReadPhysical) -> int | None:
    """The guest-physical address of a linear one, as a privileged read finds it; None if it is not mapped."""
    try:
        return Paging(read, _unwritten).translate(linear, ACCESS_AC, sregs, update=False)
    except GuestException:
        return None


def _unwritten(_address: int, _data: bytes) -> None:
    """The accessed and dirty flags stay as they are."""
