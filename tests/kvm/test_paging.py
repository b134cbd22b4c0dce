"""The page-table walk: every paging mode and page size of SDM vol. 3, chapter 4, for one who only looks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.kvm.abi import Sregs
from portvisor.kvm.paging import translate

PG_PE = 0x8000_0001
PSE, PAE, LA57 = 0x10, 0x20, 0x1000
LMA, NXE = 0x400, 0x800
CR3 = 0x1000


class Tables:
    """Page tables in sparse guest memory; what was not written reads 0."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.cells: dict[int, int] = {}

    def put(self, address: int, entry: int) -> None:
        self.cells[address] = entry

    def read(self, address: int, length: int) -> bytes:
        assert length == self.width
        assert address % length == 0
        return self.cells.get(address, 0).to_bytes(length, "little")


def no_memory(_address: int, _length: int) -> bytes:
    raise AssertionError("read without paging")


def test_without_paging_linear_is_physical() -> None:
    assert translate(Sregs(), 0xFFFF_FFF0, no_memory) == 0xFFFF_FFF0
    assert translate(Sregs(), 0x1_0000_0010, no_memory) == 0x10


@given(linear=st.integers(0, 0xFFFF_FFFF), frame=st.integers(0, 0xFFFFF))
@settings(max_examples=60)
def test_32_bit_4k(linear: int, frame: int) -> None:
    sregs = Sregs(cr0=PG_PE, cr3=CR3)
    tables = Tables(4)
    tables.put(CR3 + (linear >> 22) * 4, 0x2000 | 0x67)
    assert translate(sregs, linear, tables.read) is None
    tables.put(0x2000 + (linear >> 12 & 0x3FF) * 4, frame << 12 | 0xFFF & ~0x80)
    assert translate(sregs, linear, tables.read) == frame << 12 | linear & 0xFFF


def test_32_bit_4m_with_36_bit_addresses() -> None:
    tables = Tables(4)
    tables.put(CR3 + 3 * 4, 0x0080_0000 | 5 << 13 | 0x81)
    linear = 3 << 22 | 0x12_3456
    assert translate(Sregs(cr0=PG_PE, cr3=CR3, cr4=PSE), linear, tables.read) == 0x5_0080_0000 | 0x12_3456


def test_without_pse_bit_7_of_a_directory_entry_means_nothing() -> None:
    tables = Tables(4)
    tables.put(CR3, 0x2000 | 0x81)
    tables.put(0x2000, 0x7000 | 1)
    assert translate(Sregs(cr0=PG_PE, cr3=CR3), 0x123, tables.read) == 0x7123


@pytest.mark.parametrize("large", [False, True])
def test_pae(large: bool) -> None:
    sregs = Sregs(cr0=PG_PE, cr3=CR3 | 0x20, cr4=PAE, efer=NXE)
    linear = 2 << 30 | 7 << 21 | 9 << 12 | 0x345
    tables = Tables(8)
    assert translate(sregs, linear, tables.read) is None
    tables.put(CR3 + 0x20 + 2 * 8, 0x3000 | 1)
    assert translate(sregs, linear, tables.read) is None
    if large:
        tables.put(0x3000 + 7 * 8, 0xF_FFE0_0000 | 0x8000_0000_0000_0083)
        assert translate(sregs, linear, tables.read) == 0xF_FFE0_0000 | linear & 0x1F_FFFF
    else:
        tables.put(0x3000 + 7 * 8, 0x4000 | 1)
        tables.put(0x4000 + 9 * 8, 0xF_ABCD_E000 | 0x8000_0000_0000_0001)
        assert translate(sregs, linear, tables.read) == 0xF_ABCD_E345


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("leaf", [1, 2, 3])
@pytest.mark.parametrize("linear", [0x7FFF_1234_5678, 0xFFFF_8000_0000_0ABC, 0xFFFF_FFFF_FFFF_F123])
def test_long_mode(levels: int, leaf: int, linear: int) -> None:
    sregs = Sregs(cr0=PG_PE, cr3=CR3 | 0x18, cr4=PAE | (LA57 if levels == 5 else 0), efer=LMA | NXE)
    tables = Tables(8)
    table = CR3
    for level in range(levels, leaf, -1):
        assert translate(sregs, linear, tables.read) is None
        tables.put(table + (linear >> 12 + 9 * (level - 1) & 0x1FF) * 8, table + 0x1000 | 0x27)
        table += 0x1000
    inside = (1 << 12 + 9 * (leaf - 1)) - 1
    frame = 0xD_C000_0000
    tables.put(table + (linear >> 12 + 9 * (leaf - 1) & 0x1FF) * 8, frame | (0x81 if leaf > 1 else 0x01) | 1 << 63)
    assert translate(sregs, linear, tables.read) == frame | linear & inside


def test_no_page_is_larger_than_1g() -> None:
    tables = Tables(8)
    tables.put(CR3, 0x2000 | 0x81)
    assert translate(Sregs(cr0=PG_PE, cr3=CR3, cr4=PAE, efer=LMA), 0, tables.read) is None


def test_a_reserved_bit_maps_nothing() -> None:
    tables = Tables(8)
    for level in range(4):
        tables.put(CR3 + level * 0x1000, CR3 + (level + 1) * 0x1000 | 1)
    sregs = Sregs(cr0=PG_PE, cr3=CR3, cr4=PAE, efer=LMA)
    assert translate(sregs, 0x10, tables.read) == 0x5010
    tables.put(CR3 + 0x3000, 0x5000 | 1 | 1 << 63)
    assert translate(sregs, 0x10, tables.read) is None
