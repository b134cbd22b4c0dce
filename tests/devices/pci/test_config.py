"""Masks of configuration registers (PCI 3.0, chapter 6.1: reserved, read-only and write-1-to-clear bits)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portvisor.devices.pci.config import ConfigLayout

BYTE = st.integers(0, 255)


@given(old=BYTE, writable=BYTE, clears=BYTE, value=BYTE)
def test_each_bit_keeps_its_kind(old: int, writable: int, clears: int, value: int) -> None:
    clears &= ~writable & 0xFF
    layout = ConfigLayout()
    layout.define(0x40, 1, old, writable, clears)
    config = bytearray(layout.initial)
    layout.apply(config, 0x40, 1, value)
    for bit in range(8):
        mask = 1 << bit
        if writable & mask:
            expected = value & mask
        elif clears & mask and value & mask:
            expected = 0
        else:
            expected = old & mask
        assert config[0x40] & mask == expected


@given(value=st.integers(0, 0xFFFFFFFF), size=st.sampled_from([1, 2, 4]), lane=st.integers(0, 3))
def test_only_the_addressed_bytes_change(value: int, size: int, lane: int) -> None:
    """3.2.2.3: byte enables."""
    lane -= lane % size
    layout = ConfigLayout()
    layout.define(0x40, 4, 0x11223344, 0xFFFFFFFF)
    config = bytearray(layout.initial)
    layout.apply(config, 0x40 + lane, size, value & ((1 << 8 * size) - 1))
    expected = bytearray((0x11223344).to_bytes(4, "little"))
    expected[lane : lane + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    assert config[0x40:0x44] == expected


def test_a_register_must_fit() -> None:
    with pytest.raises(ValueError, match="configuration space has 256 bytes"):
        ConfigLayout().define(0xFE, 4)


def test_a_bit_cannot_be_both_writable_and_w1c() -> None:
    with pytest.raises(ValueError, match="both writable and W1C"):
        ConfigLayout().define(0x40, 1, 0, 0x3, 0x2)
