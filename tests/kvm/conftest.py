"""Fixtures of the engine tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portvisor.kvm.hardware import HardwareSystem, open_hardware
from support import require_kvm


@pytest.fixture
def kvm() -> Iterator[HardwareSystem]:
    """An open /dev/kvm."""
    require_kvm()
    system = open_hardware()
    yield system
    system.close()
