"""Base address registers (PCI 3.0, 6.2.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portvisor.devices.pci import Bar


def sized(bar: Bar) -> int:
    """The register after all ones were written to it."""
    ones = (1 << 8 * bar.width) - 1
    return bar.settle(ones & bar.writable | bar.flags)


@given(exponent=st.integers(2, 8))
def test_io_sizing(exponent: int) -> None:
    """6.2.5.1: the address bits that can be written give the size; bit 0 is 1 for I/O."""
    bar = Bar.io(1 << exponent)
    assert ~(sized(bar) & ~3) + 1 & 0xFFFFFFFF == 1 << exponent
    assert sized(bar) & 3 == 1


@given(exponent=st.integers(4, 30), prefetchable=st.booleans())
def test_memory_sizing(exponent: int, prefetchable: bool) -> None:
    """6.2.5.1: bits 2:1 00 for 32 bits, bit 3 prefetchable."""
    bar = Bar.memory(1 << exponent, prefetchable=prefetchable)
    assert ~(sized(bar) & ~0xF) + 1 & 0xFFFFFFFF == 1 << exponent
    assert sized(bar) & 0xF == (8 if prefetchable else 0)


@given(exponent=st.integers(4, 40))
def test_memory64_sizing(exponent: int) -> None:
    """6.2.5.1: bits 2:1 10 for 64 bits; the next register is the upper half."""
    bar = Bar.memory64(1 << exponent)
    assert bar.width == 8
    assert ~(sized(bar) & ~0xF) + 1 & (1 << 64) - 1 == 1 << exponent
    assert sized(bar) & 0xF == 4


@given(exponent=st.integers(11, 24))
def test_rom_sizing(exponent: int) -> None:
    """6.2.5.2: bit 0 enables, bits 10:1 are reserved."""
    bar = Bar.rom(1 << exponent)
    assert ~(sized(bar) & ~0x7FF) + 1 & 0xFFFFFFFF == 1 << exponent
    assert sized(bar) & 0x7FE == 0


def test_address_0_answers_nowhere() -> None:
    assert Bar.io(16).decode(0x1) is None
    assert Bar.memory(0x1000).decode(0) is None


def test_a_sizing_pattern_answers_nowhere() -> None:
    for bar in (Bar.io(16), Bar.memory(0x1000), Bar.memory64(0x4000), Bar.rom(0x800)):
        assert bar.decode(sized(bar)) is None


def test_half_sized_64_bit_register_answers_nowhere() -> None:
    bar = Bar.memory64(0x4000)
    assert bar.decode(0xFFFFC000 | 4) is None
    assert bar.decode(0xFFFFFFFF_00000004) is None
    assert bar.decode(0x8_00000004) == 0x8_00000000


def test_ports_beyond_ffff_answer_nowhere() -> None:
    """The x86 I/O space has 64 Ki ports."""
    assert Bar.io(16).decode(0x10001) is None
    assert Bar.io(16).decode(0xFFF1) == 0xFFF0


def test_rom_needs_its_enable_bit() -> None:
    """6.2.5.2, bit 0."""
    assert Bar.rom(0x800).decode(0xFE000000) is None
    assert Bar.rom(0x800).decode(0xFE000001) == 0xFE000000


@given(value=st.integers(0, 0xFFFFFFFF))
def test_a_fixed_register_takes_no_address_but_answers_sizing(value: int) -> None:
    bar = Bar.io(32, address=0x3020, fixed=True)
    settled = bar.settle(value & bar.writable | bar.flags)
    assert settled == (0xFFFFFFE1 if value & 0xFFFFFFE0 == 0xFFFFFFE0 else 0x3021)
    assert bar.decode(settled) == 0x3020


def test_a_fixed_64_bit_register_is_sized_dword_by_dword() -> None:
    bar = Bar.memory64(0x4000, address=0x8_FE000000, fixed=True)
    assert bar.settle(0x8_FFFFC004) == 0x8_FFFFC004
    assert bar.settle(0xFFFFFFFF_FE000004) == 0xFFFFFFFF_FE000004
    assert bar.settle(0x12345678_00000004) == 0x8_FE000004


@pytest.mark.parametrize(
    ("kind", "size", "smallest"),
    [("io", 2, "0x4"), ("io", 24, "0x4"), ("memory", 8, "0x10"), ("rom", 1024, "0x800")],
)
def test_sizes_are_powers_of_two_of_a_least_size(kind: str, size: int, smallest: str) -> None:
    """6.2.5: minimum 4 bytes I/O, 16 bytes memory, 2 KiB ROM."""
    with pytest.raises(ValueError, match=f"a power of two of at least {smallest}"):
        getattr(Bar, kind)(size)


def test_the_address_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="not aligned to its size 0x20"):
        Bar.io(32, address=0x3010)
