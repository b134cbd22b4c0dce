"""PCH data sheet, "General Purpose I/O Registers"; the rule is in each test's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.pci.board import empty_space
from portvisor.devices.pch_gpio import PchGpio
from portvisor.ports import PortRange, PortSpace
from portvisor.testing import DeviceSuite

BASE = 0x500
FW_CFG = PortRange(0x510, 12, name="fw_cfg")
USE_SEL, IO_SEL, LVL, NMI_EN, NMI_STS = 0x00, 0x04, 0x0C, 0x28, 0x2A


class TestSuite(DeviceSuite):
    def make(self) -> PchGpio:
        return PchGpio(base=BASE, holes=[FW_CFG], inputs=0x123456789ABCDEF)


def space_with(gpio: PchGpio) -> PortSpace:
    space = empty_space()
    space.attach(gpio)
    return space


@pytest.fixture
def space() -> PortSpace:
    return space_with(PchGpio(base=BASE))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x00, 0xB96BA1FF), (0x04, 0xEEFF6EFF), (0x18, 0x00040000), (0x1C, 0), (0x20, 0x00080000), (0x28, 0),
        (0x2C, 0), (0x30, 0x020300FF), (0x34, 0x1F57FFF4), (0x40, 0x00000130), (0x44, 0x00000FF0),
        (0x60, 0x01000000), (0x64, 0), (0x68, 0),
    ],
)  # fmt: skip
def test_default_values(space: PortSpace, offset: int, value: int) -> None:
    """The default value of each register."""
    assert space.read(BASE + offset, 4) == value


@pytest.mark.parametrize("offset", [0x08, 0x10, 0x14, 0x3C, *range(0x4C, 0x60, 4), *range(0x6C, 0x80, 4)])
def test_reserved_offsets(space: PortSpace, offset: int) -> None:
    """They read 0."""
    space.write(BASE + offset, 4, 0xFFFFFFFF)
    assert space.read(BASE + offset, 4) == 0


@pytest.mark.parametrize(
    ("offset", "bits"),
    [
        (0x00, 0xFFFFFFFF), (0x04, 0xFFFFFFFF), (0x18, 0xFFFFFFFF), (0x20, 0x00FF0000), (0x2C, 0xFFFFFFFF),
        (0x30, 0xFFFFFFFF), (0x34, 0xFFFFFFFF), (0x40, 0xFFF), (0x44, 0xFFF), (0x60, 0xFFFFFFFF), (0x68, 0xFFF),
    ],
)  # fmt: skip
def test_writable_bits(space: PortSpace, offset: int, bits: int) -> None:
    """Set 3 has 12 pins; GP_SB_CMDSTS keeps length and rate, its go and busy bits read 0."""
    space.write(BASE + offset, 4, 0xFFFFFFFF)
    assert space.read(BASE + offset, 4) == bits
    space.write(BASE + offset, 4, 0)
    assert space.read(BASE + offset, 4) == 0


@pytest.mark.parametrize(("select", "level", "first"), [(0x04, 0x0C, 0), (0x34, 0x38, 32), (0x44, 0x48, 64)])
def test_levels(select: int, level: int, first: int) -> None:
    """GP_LVL: an input (GP_IO_SEL 1) reads its pin and ignores writes, an output reads what is written."""
    straps = 0b1010 << first
    space = space_with(PchGpio(inputs=straps, base=BASE))
    space.write(BASE + select, 4, 0b0011)
    space.write(BASE + level, 4, 0b0101)
    assert space.read(BASE + level, 4) & 0xF == 0b0110
    space.write(BASE + select, 4, 0b1111)
    assert space.read(BASE + level, 4) & 0xF == 0b1010


def test_a_write_while_input_is_lost(space: PortSpace) -> None:
    """GP_LVL: it has no effect, so the output comes up with what was there before."""
    space.write(BASE + IO_SEL, 4, 0)
    space.write(BASE + LVL, 4, 0)
    space.write(BASE + IO_SEL, 4, 1)
    space.write(BASE + LVL, 4, 1)
    space.write(BASE + IO_SEL, 4, 0)
    assert space.read(BASE + LVL, 4) == 0


def test_nmi_status_is_cleared_by_ones() -> None:
    """GPI_NMI_STS: write 1 to clear, in its own word only; GPI_NMI_EN keeps what is written."""
    gpio = PchGpio(base=BASE)
    space = space_with(gpio)
    gpio.state.words[NMI_EN >> 2] = 0xFFFF0000
    space.write(BASE + NMI_EN, 2, 0x1234)
    assert space.read(BASE + NMI_STS, 2) == 0xFFFF
    space.write(BASE + NMI_STS, 2, 0x00F0)
    assert space.read(BASE + NMI_STS, 2) == 0xFF0F
    space.write(BASE + NMI_STS + 1, 1, 0xF0)
    assert space.read(BASE + NMI_EN, 4) == 0x0F0F1234


def test_bytes_and_words(space: PortSpace) -> None:
    for offset, value in enumerate((0x11, 0x22, 0x33, 0x44)):
        space.write(BASE + USE_SEL + offset, 1, value)
    assert space.read(BASE + USE_SEL, 4) == 0x44332211
    assert space.read(BASE + USE_SEL + 2, 2) == 0x4433


def test_reset() -> None:
    gpio = PchGpio()
    gpio.write(USE_SEL, 4, 0)
    gpio.reset()
    assert gpio.read(USE_SEL, 4) == 0xB96BA1FF


# --- where it is ---------------------------------------------------------------------------------------------


def test_not_decoded() -> None:
    """GPIO_CNTL.EN 0: no ports."""
    assert PchGpio().ports == ()
    assert PchGpio(base=BASE).ranges(None) == ()


def test_a_hole_belongs_to_somebody_else() -> None:
    gpio = PchGpio(base=BASE, holes=[FW_CFG])
    space = space_with(gpio)
    assert [str(owned) for owned in gpio.ports] == ["0500-050f : gpio", "051c-057f : gpio"]
    assert {port for port in range(BASE, BASE + 0x80) if not space.owner(port, 1)} == set(range(0x510, 0x51C))
    space.write(BASE + 0x30, 4, 0x12345678)
    assert gpio.state.words[0x30 >> 2] == 0x12345678


def test_the_hole_stays_where_it_is_when_the_block_moves() -> None:
    gpio = PchGpio(holes=[FW_CFG])
    assert [str(owned) for owned in gpio.ranges(0x480)] == ["0480-04ff : gpio"]
    assert [str(owned) for owned in gpio.ranges(0x500)] == ["0500-050f : gpio", "051c-057f : gpio"]


@pytest.mark.parametrize(
    ("hole", "expected"),
    [
        (PortRange(0x500, 0x80, name="all"), []),
        (PortRange(0x4F0, 0x20, name="front"), ["0510-057f : gpio"]),
        (PortRange(0x57F, 4, name="end"), ["0500-057e : gpio"]),
    ],
)
def test_holes_at_the_ends(hole: PortRange, expected: list[str]) -> None:
    assert [str(owned) for owned in PchGpio(base=BASE, holes=[hole]).ports] == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0x4F0, 0x58F), st.integers(1, 40), st.integers(0, 0x7F), st.sampled_from([1, 2, 4]))
def test_any_hole(base: int, length: int, offset: int, size: int) -> None:
    """Every port outside the hole answers, with the byte that belongs there."""
    gpio = PchGpio(base=BASE, holes=[PortRange(base, length, name="hole")])
    space = space_with(gpio)
    whole = b"".join(gpio.read(index, 4).to_bytes(4, "little") for index in range(0, 0x80, 4))
    expected = bytes(
        0xFF if base <= port < base + length or port > 0x57F else whole[port - BASE]
        for port in range(BASE + offset, BASE + offset + size)
    )
    assert space.read(BASE + offset, size).to_bytes(size, "little") == expected


def test_register_names() -> None:
    gpio = PchGpio()
    assert gpio.register_name(0x0C, 4, False) == "GP_LVL"
    assert gpio.register_name(0x0E, 1, False) == "GP_LVL"
    assert gpio.register_name(0x2A, 2, True) == "GPI_NMI_STS"
    assert gpio.register_name(0x08, 4, False) == ""
