"""Intel 82441FX data sheet (290549); the rule is in each test's docstring."""

from __future__ import annotations

from itertools import pairwise

import pytest

from devices.pci.board import Board
from portvisor.devices.pci import I440Fx, PamSegment, PciId
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> I440Fx:
        bridge = I440Fx()
        Board().root.attach(bridge, 0)
        return bridge


class North:
    def __init__(self) -> None:
        self.told: list[PamSegment] = []
        self.board = Board()
        self.bridge = I440Fx(self.told.append)
        self.board.root.attach(self.bridge, 0)


@pytest.fixture
def north() -> North:
    return North()


@pytest.mark.parametrize(
    ("register", "size", "value"),
    [
        (0x00, 4, 0x12378086),
        (0x04, 4, 0x02800006),
        (0x08, 4, 0x06000002),
        (0x0E, 1, 0x00),
        (0x2C, 4, 0x11001AF4),
        (0x53, 1, 0x80),
        (0x57, 1, 0x01),
        (0x58, 1, 0x10),
        (0x60, 4, 0x01010101),
        (0x64, 4, 0x01010101),
        (0x72, 1, 0x02),
        (0x91, 1, 0x00),
    ],
)
def test_default_values(north: North, register: int, size: int, value: int) -> None:
    """The default value of each register."""
    assert north.board.get(0, register, size) == value


@pytest.mark.parametrize(
    ("register", "size", "value"),
    [(0x04, 2, 0x0146), (0x0C, 2, 0xF800), (0x3C, 1, 0), (0x68, 1, 0xC0), (0x70, 1, 0xF8), (0x71, 1, 0x1F)],
)
def test_writable_bits(north: North, register: int, size: int, value: int) -> None:
    """Reserved bits stay 0; registers that the chip has not read 0."""
    north.board.put(0, register, (1 << 8 * size) - 1, size)
    assert north.board.get(0, register, size) == value


def test_pam_defaults_to_reads_and_writes_on_the_bus(north: North) -> None:
    """PAM: default 00h, that is all attributes disabled."""
    assert all(north.board.get(0, register, 1) == 0 for register in range(0x59, 0x60))


def test_pam_keeps_its_attribute_bits(north: North) -> None:
    """PAM: WE and RE of two segments in a register; PAM0's low half is reserved."""
    for register in range(0x59, 0x60):
        north.board.put(0, register, 0xFF, 1)
    assert [north.board.get(0, register, 1) for register in range(0x59, 0x60)] == [0x30, *[0x33] * 6]


@pytest.mark.parametrize(
    ("register", "value", "base", "length", "read", "write"),
    [
        (0x59, 0x10, 0xF0000, 0x10000, True, False),
        (0x59, 0x30, 0xF0000, 0x10000, True, True),
        (0x5A, 0x01, 0xC0000, 0x4000, True, False),
        (0x5A, 0x20, 0xC4000, 0x4000, False, True),
        (0x5C, 0x03, 0xD0000, 0x4000, True, True),
        (0x5F, 0x30, 0xEC000, 0x4000, True, True),
    ],
)
def test_pam_segments(
    north: North, register: int, value: int, base: int, length: int, read: bool, write: bool
) -> None:
    """PAM, attribute bits and memory segments."""
    north.board.put(0, register, value, 1)
    assert north.told == [PamSegment(base, length, read, write)]


def test_pam_tells_changes_only(north: North) -> None:
    north.board.put(0, 0x58, 0x33333310)
    assert {segment.base for segment in north.told} == {0xF0000, *range(0xC0000, 0xD0000, 0x4000)}
    north.told.clear()
    north.board.put(0, 0x58, 0x33333310)
    assert north.told == []


def test_the_segments_cover_c0000_to_fffff(north: North) -> None:
    covered = sorted((segment.base, segment.base + segment.length) for segment in north.bridge.pam_segments())
    assert covered[0][0] == 0xC0000
    assert covered[-1][1] == 0x100000
    assert all(left[1] == right[0] for left, right in pairwise(covered))


def test_reset_takes_pam_back(north: North) -> None:
    north.board.put(0, 0x59, 0x30, 1)
    north.told.clear()
    north.bridge.reset()
    assert north.told == [PamSegment(0xF0000, 0x10000, False, False)]


def test_restore_tells_pam(north: North) -> None:
    north.board.put(0, 0x59, 0x30, 1)
    saved = north.bridge.snapshot()
    north.bridge.reset()
    north.told.clear()
    north.bridge.restore(saved)
    assert north.told == [PamSegment(0xF0000, 0x10000, True, True)]


def test_smram_space_is_always_a0000(north: North) -> None:
    """SMRAM: C_BASE_SEG 010 is read-only."""
    north.board.put(0, 0x72, 0x4D, 1)
    assert north.board.get(0, 0x72, 1) == 0x4A


def test_smram_lock(north: North) -> None:
    """SMRAM: D_LCK = 1 resets D_OPEN and makes D_LCK, D_OPEN and G_SMRAME read-only."""
    north.board.put(0, 0x72, 0x58, 1)
    assert north.board.get(0, 0x72, 1) == 0x1A
    north.board.put(0, 0x72, 0x40, 1)
    assert north.board.get(0, 0x72, 1) == 0x1A
    north.bridge.reset()
    assert north.board.get(0, 0x72, 1) == 0x02


def test_identity_can_be_that_of_the_real_chip() -> None:
    board = Board()
    board.root.attach(I440Fx(identity=PciId(0x8086, 0x1237, 0x060000, 0x02)), 0)
    assert board.get(0, 0x2C) == 0
