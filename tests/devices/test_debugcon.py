"""The conventions of Bochs' port E9 and QEMU's isa-debugcon."""

from __future__ import annotations

from portvisor.devices.debugcon import DebugConsole
from portvisor.ports import PortSpace
from portvisor.testing import DeviceSuite


def board() -> tuple[bytearray, PortSpace]:
    text = bytearray()
    space = PortSpace(strict=True)
    space.attach(DebugConsole(text.extend))
    return text, space


class TestSuite(DeviceSuite):
    def make(self) -> DebugConsole:
        return DebugConsole(lambda data: None, base=0xE9)


def test_reads_e9_so_that_firmware_finds_it() -> None:
    _, space = board()
    assert space.read(0x402, 1) == 0xE9
    assert space.read_block(0x402, 1, 3) == b"\xe9\xe9\xe9"


def test_characters_reach_the_sink_in_order() -> None:
    text, space = board()
    for value in b"Sea":
        space.write(0x402, 1, value)
    space.write_block(0x402, 1, b"BIOS")
    assert text == b"SeaBIOS"


def test_a_word_write_puts_out_its_low_byte_only() -> None:
    """It is an 8-bit port: the high byte goes to the next port, which nobody owns."""
    text, space = board()
    space.write(0x402, 2, 0x4241)
    assert text == b"A"
