"""What a board's firmware finds in CMOS RAM: memory size, equipment, boot order.

Source: the IBM AT layout and QEMU's extensions that SeaBIOS reads (3D and 38: boot order, 5B-5D: memory
above 4 GiB, 5F: processors).
"""

from __future__ import annotations

from collections.abc import Sequence

FLOPPY_TYPES = 0x10
EQUIPMENT, BASE_MEMORY, EXTENDED_MEMORY, EXTENDED_MEMORY_AGAIN = 0x14, 0x15, 0x17, 0x30
MEMORY_ABOVE_16M, MEMORY_ABOVE_4G = 0x34, 0x5B
BOOT_ORDER_12, BOOT_ORDER_3, PROCESSORS, CENTURY = 0x3D, 0x38, 0x5F, 0x32
FLOPPY, FPU, PS2_MOUSE, FLOPPIES, FLOPPIES_SHIFT = 0x01, 0x02, 0x04, 0xC0, 6
BASE_KIB = 640
BOOT_CODES = {"floppy": 1, "disk": 2, "cdrom": 3, "network": 4}


def _word(cmos: bytearray, index: int, value: int) -> None:
    cmos[index : index + 2] = min(value, 0xFFFF).to_bytes(2, "little")


def set_floppies(cmos: bytearray, kinds: Sequence[int]) -> None:
    """Name the floppy drives A and B by their CMOS codes; 0 for none."""
    first, second = kinds
    cmos[FLOPPY_TYPES] = first << 4 | second
    count = sum(kind != 0 for kind in kinds)
    installed = FLOPPY | count - 1 << FLOPPIES_SHIFT if count else 0
    cmos[EQUIPMENT] = cmos[EQUIPMENT] & ~(FLOPPY | FLOPPIES) | installed


def fill(cmos: bytearray, low_memory: int, high_memory: int = 0, boot: Sequence[str] = ("disk", "cdrom")) -> None:
    """Describe the machine.

    Args:
        cmos: the RAM, 128 bytes or more.
        low_memory: RAM below 4 GiB in bytes.
        high_memory: RAM above 4 GiB in bytes.
        boot: at most three of `BOOT_CODES`, first choice first.
    """
    cmos[EQUIPMENT] = FPU | PS2_MOUSE
    _word(cmos, BASE_MEMORY, BASE_KIB)
    extended = max(0, (low_memory >> 10) - 1024)
    _word(cmos, EXTENDED_MEMORY, extended)
    _word(cmos, EXTENDED_MEMORY_AGAIN, extended)
    _word(cmos, MEMORY_ABOVE_16M, max(0, low_memory - (16 << 20)) >> 16)
    cmos[MEMORY_ABOVE_4G : MEMORY_ABOVE_4G + 3] = (high_memory >> 16).to_bytes(3, "little")
    codes = [BOOT_CODES[device] for device in boot] + [0, 0, 0]
    cmos[BOOT_ORDER_12] = codes[0] | codes[1] << 4
    cmos[BOOT_ORDER_3] = codes[2] << 4
