"""Page walks: every kind of paging, access rights, reserved bits, error codes, accessed and dirty flags."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.kvm.emulate import FlatMemory, GuestException, Paging
from portvisor.kvm.emulate.paging import ACCESS_AC, ACCESS_FETCH, ACCESS_IMPLICIT, ACCESS_USER, ACCESS_WRITE

P, RW, US, A, D, PS, PAT, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 12, 1 << 63
PG, WP = 1 << 31, 1 << 16
PSE, PAE, LA57, SMEP, SMAP = 1 << 4, 1 << 5, 1 << 12, 1 << 20, 1 << 21
LMA, NXE = 1 << 10, 1 << 11
ALL = P | RW | US
W, U, X = ACCESS_WRITE, ACCESS_USER, ACCESS_FETCH
ROOT, T1, T2, T3, T4 = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000


@dataclass
class Registers:
    cr0: int = PG | 1
    cr3: int = ROOT
    cr4: int = 0
    efer: int = 0


@dataclass
class Walk:
    """A walk: registers, entries by address, linear address, what it gives."""

    rule: str
    registers: Registers
    entries: dict[int, int]
    linear: int
    physical: int | None
    """None: a page fault with error code `code`."""
    access: int = 0
    code: int = 0
    physical_bits: int = 52
    marked: dict[int, int] = field(default_factory=dict)
    """Flags that are added to entries; default: A everywhere, D in the last if written."""

    @property
    def width(self) -> int:
        return 8 if self.registers.cr4 & PAE or self.registers.efer & LMA else 4

    def __str__(self) -> str:
        return self.rule


LEGACY, PAE_ON = Registers(), Registers(cr4=PAE)
PSE_ON = Registers(cr4=PSE)
LONG = Registers(cr4=PAE, efer=LMA)
FIVE = Registers(cr4=PAE | LA57, efer=LMA)
LONG_NX = Registers(cr4=PAE, efer=LMA | NXE)
# Linear address C0403123: directory 301, table 3 (32-bit paging); pointer 3, directory 2, table 3 (PAE).
HIGH = 0xC040_3123
L2 = {ROOT + 4 * 0x301: T1 | ALL, T1 + 4 * 3: 0x7_7000 | ALL}
PAE3 = {ROOT + 8 * 3: T1 | P, T1 + 8 * 2: T2 | ALL, T2 + 8 * 3: 0x7_7000 | ALL}
# Linear address 0000_1234_5678_9ABC and its four indexes.
FAR = 0x1234_5678_9ABC
I4, I3, I2, I1 = 0x24, 0xD1, 0xB3, 0x189
L4 = {ROOT + 8 * I4: T1 | ALL, T1 + 8 * I3: T2 | ALL, T2 + 8 * I2: T3 | ALL, T3 + 8 * I1: 0x7_7000 | ALL}
UPPER = {ROOT + 8 * I4: T1 | ALL, T1 + 8 * I3: T2 | ALL}


def last(entries: dict[int, int], entry: int) -> dict[int, int]:
    """The same tables with another last entry."""
    return {**entries, list(entries)[-1]: entry}


WALKS = (
    Walk("no paging", Registers(cr0=1), {}, 0x1234_5678, 0x1234_5678, W | U),
    Walk("no paging: 32 bits", Registers(cr0=1), {}, 0x1_2345_6789, 0x2345_6789),
    # 32-bit paging
    Walk("32-bit", LEGACY, L2, HIGH, 0x7_7123, W | U),
    Walk("32-bit: CR3 low bits are flags", Registers(cr3=ROOT | 0x18), L2, HIGH, 0x7_7123),
    Walk("32-bit: no directory entry", LEGACY, {}, HIGH, None, U, code=4),
    Walk("32-bit: no table entry", LEGACY, last(L2, 0x7_7000), HIGH, None, W, code=2),
    Walk("32-bit: 4 MiB page", PSE_ON, {ROOT + 4 * 0x301: 0x0180_0000 | ALL | PS}, HIGH, 0x0180_3123, W),
    Walk(
        "32-bit: PS without CR4.PSE points to a table",
        LEGACY,
        {**L2, ROOT + 4 * 0x301: T1 | ALL | PS},
        HIGH,
        0x7_7123,
    ),
    Walk("32-bit: PSE-36", PSE_ON, {ROOT + 4 * 0x301: 0x0180_0000 | 0xAB << 13 | ALL | PS}, HIGH, 0xAB_0180_3123),
    Walk(
        "32-bit: PSE-36 with 36 address bits",
        PSE_ON,
        {ROOT + 4 * 0x301: 0x0180_0000 | 0x1B << 13 | ALL | PS},
        HIGH,
        None,
        code=9,
        physical_bits=36,
    ),
    Walk(
        "32-bit: bit 21 of a 4 MiB entry is reserved",
        PSE_ON,
        {ROOT + 4 * 0x301: 0x01A0_0000 | ALL | PS},
        HIGH,
        None,
        code=9,
    ),
    Walk(
        "32-bit: PAT of a 4 MiB page", PSE_ON, {ROOT + 4 * 0x301: 0x0180_0000 | PAT | ALL | PS}, HIGH, 0x0180_3123
    ),
    Walk("32-bit: NX does not exist", Registers(efer=NXE), L2, HIGH, 0x7_7123, X),
    Walk("32-bit: NXE without PAE gives no fetch bit", Registers(efer=NXE), {}, HIGH, None, X, code=0),
    Walk("32-bit: CR4.PSE with a small page", PSE_ON, L2, HIGH, 0x7_7123, W),
    # PAE paging
    Walk("PAE", PAE_ON, PAE3, HIGH, 0x7_7123, W | U),
    Walk(
        "PAE: CR3 is 32-byte aligned",
        Registers(cr3=ROOT + 0x20 | 0x1F, cr4=PAE),
        {ROOT + 0x20 + 8 * 3: T1 | P, **dict(list(PAE3.items())[1:])},
        HIGH,
        0x7_7123,
    ),
    Walk("PAE: no pointer", PAE_ON, {}, HIGH, None, W | U, code=6),
    Walk("PAE: no directory entry", PAE_ON, {ROOT + 8 * 3: T1 | P}, HIGH, None, code=0),
    Walk(
        "PAE: 2 MiB page", PAE_ON, {ROOT + 8 * 3: T1 | P, T1 + 8 * 2: 0x1_2340_0000 | ALL | PS}, HIGH, 0x1_2340_3123
    ),
    Walk("PAE: beyond 4 GiB", PAE_ON, last(PAE3, 0xF_1234_5000 | ALL), HIGH, 0xF_1234_5123),
    Walk("PAE: bits up to 62 are reserved", PAE_ON, last(PAE3, 1 << 60 | 0x7_7000 | ALL), HIGH, None, U, code=13),
    Walk("PAE: NX", Registers(cr4=PAE, efer=NXE), last(PAE3, NX | 0x7_7000 | ALL), HIGH, None, X, code=0x11),
    Walk("PAE: NX without NXE is reserved", PAE_ON, last(PAE3, NX | 0x7_7000 | ALL), HIGH, None, code=9),
    # 4- and 5-level paging
    Walk("4-level", LONG, L4, FAR, 0x7_7ABC, W | U),
    Walk("4-level: PCID in CR3", Registers(cr3=ROOT | 0xABC, cr4=PAE, efer=LMA), L4, FAR, 0x7_7ABC),
    Walk(
        "4-level: upper half",
        LONG,
        {
            ROOT + 8 * 0x1FF: T1 | ALL,
            T1 + 8 * 0x1FF: T2 | ALL,
            T2 + 8 * 0x1FF: T3 | ALL,
            T3 + 8 * 0x1FF: 0x7_7000 | ALL,
        },
        0xFFFF_FFFF_FFFF_F123,
        0x7_7123,
    ),
    Walk(
        "4-level: 2 MiB page",
        LONG,
        {**UPPER, T2 + 8 * I2: 0x4020_0000 | ALL | PS},
        FAR,
        0x4020_0000 | FAR & 0x1F_FFFF,
        W,
    ),
    Walk(
        "4-level: 1 GiB page",
        LONG,
        {ROOT + 8 * I4: T1 | ALL, T1 + 8 * I3: 0x8000_0000 | ALL | PS},
        FAR,
        0x8000_0000 | FAR & 0x3FFF_FFFF,
        W,
    ),
    Walk(
        "4-level: PAT of a 2 MiB page",
        LONG,
        {**UPPER, T2 + 8 * I2: 0x4020_0000 | PAT | ALL | PS},
        FAR,
        0x4020_0000 | FAR & 0x1F_FFFF,
    ),
    Walk("4-level: PAT bit of a 4 KiB page (7)", LONG, last(L4, 0x7_7000 | ALL | PS), FAR, 0x7_7ABC),
    Walk(
        "4-level: bit 13 of a 2 MiB page is reserved",
        LONG,
        {**UPPER, T2 + 8 * I2: 0x4020_2000 | ALL | PS},
        FAR,
        None,
        code=9,
    ),
    Walk(
        "4-level: bit 29 of a 1 GiB page is reserved",
        LONG,
        {ROOT + 8 * I4: T1 | ALL, T1 + 8 * I3: 0xA000_0000 | ALL | PS},
        FAR,
        None,
        W,
        code=11,
    ),
    Walk("4-level: PS at the top is reserved", LONG, {**L4, ROOT + 8 * I4: T1 | ALL | PS}, FAR, None, U, code=13),
    Walk(
        "4-level: address above the physical width",
        LONG,
        last(L4, 1 << 40 | 0x7_7000 | ALL),
        FAR,
        None,
        code=9,
        physical_bits=40,
    ),
    Walk(
        "4-level: address of a table above the width",
        LONG,
        {**L4, T1 + 8 * I3: 1 << 45 | T2 | ALL},
        FAR,
        None,
        code=9,
        physical_bits=45,
    ),
    Walk(
        "4-level: the highest address within the width",
        LONG,
        last(L4, 1 << 39 | 0x7_7000 | ALL),
        FAR,
        1 << 39 | 0x7_7ABC,
        physical_bits=40,
    ),
    Walk("4-level: bits 52-62 are ignored", LONG, last(L4, 0x7FF << 52 | 0x7_7000 | ALL), FAR, 0x7_7ABC),
    Walk("4-level: not present is not checked further", LONG, last(L4, NX | 1 << 51 | PS), FAR, None, X, code=0),
    Walk(
        "5-level",
        FIVE,
        {ROOT + 8 * 0x55: T4 | ALL, T4 + 8 * I4: T1 | ALL, **dict(list(L4.items())[1:])},
        0x55 << 48 | FAR,
        0x7_7ABC,
        W,
    ),
    # access rights
    *(
        Walk(f"rights of the {name} level count: U", LONG, {**L4, at: L4[at] & ~US}, FAR, None, U, code=5)
        for name, at in zip(("first", "second", "third", "fourth"), L4, strict=True)
    ),
    *(
        Walk(f"rights of the {name} level count: W", LONG, {**L4, at: L4[at] & ~RW}, FAR, None, U | W, code=7)
        for name, at in zip(("first", "second", "third", "fourth"), L4, strict=True)
    ),
    *(
        Walk(f"NX of the {name} level counts", LONG_NX, {**L4, at: L4[at] | NX}, FAR, None, U | X, code=0x15)
        for name, at in zip(("first", "second", "third", "fourth"), L4, strict=True)
    ),
    Walk("supervisor writes to read-only pages with WP=0", LONG, last(L4, 0x7_7000 | P | US), FAR, 0x7_7ABC, W),
    Walk(
        "not with WP=1", Registers(cr0=PG | WP | 1, cr4=PAE, efer=LMA), last(L4, 0x7_7000 | P), FAR, None, W, code=3
    ),
    Walk(
        "WP does not matter to reads",
        Registers(cr0=PG | WP | 1, cr4=PAE, efer=LMA),
        last(L4, 0x7_7000 | P),
        FAR,
        0x7_7ABC,
    ),
    Walk("user reads a read-only page", LONG, last(L4, 0x7_7000 | P | US), FAR, 0x7_7ABC, U),
    Walk("user writes a read-only page", LONG, last(L4, 0x7_7000 | P | US), FAR, None, U | W, code=7),
    Walk("user reads a supervisor page", LONG, last(L4, 0x7_7000 | P | RW), FAR, None, U, code=5),
    Walk("NX does not matter to data", LONG_NX, last(L4, NX | 0x7_7000 | ALL), FAR, 0x7_7ABC, U | W),
    Walk("a fetch without NXE and SMEP has no fetch bit", LONG, last(L4, 0x7_7000 | P), FAR, None, U | X, code=5),
    Walk("a fetch of an absent page with NXE has it", LONG_NX, last(L4, 0), FAR, None, X, code=0x10),
    Walk("SMEP: supervisor fetches a user page", Registers(cr4=PAE | SMEP, efer=LMA), L4, FAR, None, X, code=0x11),
    Walk("SMEP: supervisor reads a user page", Registers(cr4=PAE | SMEP, efer=LMA), L4, FAR, 0x7_7ABC),
    Walk("SMEP: user fetches a user page", Registers(cr4=PAE | SMEP, efer=LMA), L4, FAR, 0x7_7ABC, U | X),
    Walk("SMAP: supervisor reads a user page", Registers(cr4=PAE | SMAP, efer=LMA), L4, FAR, None, code=1),
    Walk("SMAP: RFLAGS.AC allows it", Registers(cr4=PAE | SMAP, efer=LMA), L4, FAR, 0x7_7ABC, W | ACCESS_AC),
    Walk(
        "SMAP: not for implicit accesses",
        Registers(cr4=PAE | SMAP, efer=LMA),
        L4,
        FAR,
        None,
        ACCESS_AC | ACCESS_IMPLICIT,
        code=1,
    ),
    Walk("SMAP: supervisor fetches a user page", Registers(cr4=PAE | SMAP, efer=LMA), L4, FAR, 0x7_7ABC, X),
    Walk(
        "SMAP: supervisor page", Registers(cr4=PAE | SMAP, efer=LMA), last(L4, 0x7_7000 | P | RW), FAR, 0x7_7ABC, W
    ),
    Walk("SMAP: user code is not concerned", Registers(cr4=PAE | SMAP, efer=LMA), L4, FAR, 0x7_7ABC, U | W),
)


def memory_of(walk: Walk) -> bytearray:
    memory = bytearray(0x8000)
    for address, entry in walk.entries.items():
        memory[address : address + walk.width] = entry.to_bytes(walk.width, "little")
    return memory


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_walk(walk: Walk) -> None:
    memory = memory_of(walk)
    expected = memory[:]
    flat = FlatMemory(memory)
    paging = Paging(flat.read, flat.write, walk.physical_bits)
    if walk.physical is None:
        with pytest.raises(GuestException) as caught:
            paging.translate(walk.linear, walk.access, walk.registers)
        assert caught.value == GuestException(14, walk.code, walk.linear)
    else:
        assert paging.translate(walk.linear, walk.access, walk.registers, update=False) == walk.physical
        assert memory == expected, "looking changes nothing"
        assert paging.translate(walk.linear, walk.access, walk.registers) == walk.physical
        flagged = list(walk.entries)
        if walk.registers.cr4 & PAE and not walk.registers.efer & LMA:
            flagged = flagged[1:]  # the pointers of PAE paging have no accessed flag
        for address in flagged:
            expected[address] |= A
        if flagged and walk.access & ACCESS_WRITE:
            expected[flagged[-1]] |= D
    assert memory == expected


def test_flags_that_are_set_are_not_written_again() -> None:
    memory = bytearray(0x8000)
    for address, entry in L4.items():
        memory[address : address + 8] = entry.to_bytes(8, "little")
    writes: list[int] = []

    def write(address: int, data: bytes) -> None:
        writes.append(address)
        memory[address : address + len(data)] = data

    paging = Paging(FlatMemory(memory).read, write)
    leaf = list(L4)[-1]
    paging.translate(FAR, 0, LONG)
    assert writes == list(L4)
    paging.translate(FAR, W, LONG)
    assert writes == [*L4, leaf]
    paging.translate(FAR, W, LONG)
    assert writes == [*L4, leaf]


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(min_size=512, max_size=512),
    linear=st.integers(0, (1 << 64) - 1),
    access=st.sampled_from([0, W, U, W | U, X, X | U, ACCESS_AC, ACCESS_IMPLICIT]),
    cr3=st.integers(0, (1 << 64) - 1) | st.just(0),
    cr4=st.integers(0, 0xFFFFFF),
    efer=st.sampled_from([0, LMA, LMA | NXE, NXE]),
)
def test_hostile_tables_give_an_address_or_a_fault(
    data: bytes, linear: int, access: int, cr3: int, cr4: int, efer: int
) -> None:
    flat = FlatMemory(bytearray(data))
    paging = Paging(flat.read, flat.write)
    registers = Registers(cr3=cr3, cr4=cr4, efer=efer)
    fault = None
    try:
        physical = paging.translate(linear, access, registers)
    except GuestException as exception:
        fault = exception
    if fault is None:
        assert 0 <= physical < 1 << 52
    else:
        assert (fault.vector, fault.cr2) == (14, linear)
