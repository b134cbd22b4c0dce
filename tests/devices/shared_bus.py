"""One strict port space for the tests of small devices: making one takes longer than most tests."""

from __future__ import annotations

from portvisor.ports import Device, PortSpace

_SPACE = PortSpace(strict=True)


def bus(*devices: Device) -> PortSpace:
    """The port space with these devices and nothing else on it; it belongs to the last caller."""
    for device in _SPACE.devices():
        _SPACE.detach(device)
    for device in devices:
        _SPACE.attach(device)
    return _SPACE
