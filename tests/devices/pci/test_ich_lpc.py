"""C610 PCH data sheet (330788), "LPC Interface Bridge Registers (D31:F0)"; the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from devices.pci.board import Board, Card, empty_space
from portvisor.devices.acpi_pm import AcpiPm
from portvisor.devices.pch_gpio import PchGpio
from portvisor.devices.pci import PciHost
from portvisor.devices.pci.ich_lpc import ICH9_LPC, IchLpc, LpcBases, LpcSettings
from portvisor.ports import IrqLine, MmioSpace, PortRange, VirtualClock
from portvisor.testing import DeviceSuite

PMBASE, ACPI_CNTL, GPIOBASE, GC, RCBA = 0x40, 0x44, 0x48, 0x4C, 0xF0
SLOT = 0x1F
SERVER = LpcSettings(0x401, 0x80, 0x501, 0x10, 0xFED1C001, (10, 11, 10, 11, 10, 11, 10, 11))


class South:
    """The bridge on a board, and what it was heard to say of its blocks' bases."""

    def __init__(self, settings: LpcSettings | None = None) -> None:
        self.board = Board()
        self.isa = {irq: IrqLine(name=f"irq{irq}") for irq in range(16)}
        self.heard: dict[str, list[int | None]] = {"pm": [], "gpio": [], "rcba": []}
        bases = LpcBases(*(self.heard[name].append for name in ("pm", "gpio", "rcba")))
        self.lpc = IchLpc(self.isa, bases, settings)
        self.board.root.attach(self.lpc, SLOT)

    def get(self, register: int, size: int = 4) -> int:
        return self.board.get(SLOT, register, size)

    def put(self, register: int, value: int, size: int = 4) -> None:
        self.board.put(SLOT, register, value, size)

    @property
    def bases(self) -> tuple[int | None, int | None, int | None]:
        """PM, GPIO and RCBA as last announced."""
        return self.heard["pm"][-1], self.heard["gpio"][-1], self.heard["rcba"][-1]

    def raised(self) -> list[int]:
        return [irq for irq, line in self.isa.items() if line.level]


@pytest.fixture
def south() -> South:
    return South()


class TestSuite(DeviceSuite):
    def make(self) -> IchLpc:
        return South(SERVER).lpc


# --- registers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("register", "size", "value"),
    [
        (0x00, 4, 0x8D448086), (0x04, 4, 0x02100007), (0x08, 4, 0x06010005), (0x34, 1, 0xE0), (0x40, 4, 1),
        (0x44, 1, 0), (0x48, 4, 1), (0x4C, 1, 0), (0x60, 4, 0x80808080), (0x64, 1, 0x10), (0x68, 4, 0x80808080),
        (0x6C, 2, 0x00F8), (0x80, 4, 0), (0xD0, 4, 0x00112233), (0xD4, 2, 0x4567), (0xD8, 2, 0xFFCF),
        (0xDC, 1, 0x20), (0xE0, 4, 0x100C0009), (0xF0, 4, 0),
    ],
)  # fmt: skip
def test_default_values(south: South, register: int, size: int, value: int) -> None:
    """The default value of each register."""
    assert south.get(register, size) == value


@pytest.mark.parametrize(
    ("register", "size", "expected"),
    [
        (PMBASE, 4, 0x0000FF81), (ACPI_CNTL, 1, 0x87), (GPIOBASE, 4, 0x0000FF81), (GC, 1, 0x11),
        (0x60, 4, 0x8F8F8F8F), (0x68, 4, 0x8F8F8F8F), (0x80, 2, 0x1377), (0x82, 2, 0x3F0F), (0x84, 4, 0x00FCFFFD),
        (0xDC, 1, 0x2F), (0xE0, 4, 0x100C0009), (RCBA, 4, 0xFFFFC001),
    ],
)  # fmt: skip
def test_writable_bits(south: South, register: int, size: int, expected: int) -> None:
    """What is left of a write of all ones."""
    south.put(register, 0xFFFFFFFF & (1 << 8 * size) - 1, size)
    assert south.get(register, size) == expected


def test_io_memory_and_master_are_always_on(south: South) -> None:
    """PCICMD: bits 2:0 are hardwired to 1."""
    south.put(0x04, 0, 2)
    assert south.get(0x04, 2) & 7 == 7


def test_other_identities() -> None:
    lpc = IchLpc({}, LpcBases(*[lambda base: None] * 3), identity=ICH9_LPC)
    Board().root.attach(lpc, SLOT)
    assert lpc.config_read(0, 4) == 0x29188086


def test_register_names(south: South) -> None:
    assert south.lpc.config_register_name(0x40) == "PMBASE"
    assert south.lpc.config_register_name(0x6B) == "PIRQH_ROUT"
    assert south.lpc.config_register_name(0x04) == "COMMAND"


# --- the blocks' bases ---------------------------------------------------------------------------------------


def test_nothing_is_decoded_after_reset(south: South) -> None:
    """ACPI_CNTL.ACPI_EN, GC.EN and RCBA.EN are 0."""
    south.lpc.announce_bases()
    assert south.bases == (None, None, None)


def test_settings_stand_for_what_firmware_programs() -> None:
    south = South(SERVER)
    south.lpc.announce_bases()
    assert south.bases == (0x400, 0x500, 0xFED1C000)
    assert south.get(PMBASE) == 0x401


def test_pm_base(south: South) -> None:
    """PMBASE 15:7, ACPI_CNTL bit 7."""
    south.put(PMBASE, 0x1234ABFF)
    assert south.bases[0] is None
    south.put(ACPI_CNTL, 0x80, 1)
    assert south.bases[0] == 0xAB80
    south.put(PMBASE + 1, 0x04, 1)
    assert south.bases[0] == 0x0480
    south.put(ACPI_CNTL, 0, 1)
    assert south.bases[0] is None


def test_gpio_base(south: South) -> None:
    """GPIOBASE 15:7, GC bit 4; a dword write reaches GC as well."""
    south.put(GPIOBASE, 0x0500)
    south.put(GC, 0x10)
    assert south.bases[1] == 0x500
    south.put(GC, 0x00, 1)
    assert south.bases[1] is None


def test_rcba(south: South) -> None:
    """RCBA 31:14 and bit 0."""
    south.put(RCBA, 0xFED1C001)
    assert south.bases[2] == 0xFED1C000
    south.put(RCBA, 0xFED1C000)
    assert south.bases[2] is None


def test_bases_of_zero_are_not_decoded(south: South) -> None:
    south.put(ACPI_CNTL, 0x80, 1)
    south.put(GC, 0x10, 1)
    assert south.bases[:2] == (None, None)


def test_unrelated_registers_announce_nothing(south: South) -> None:
    for register in (0x3C, 0x64, 0x84, 0xDC, 0xE4):
        south.put(register, 0xFFFFFFFF)
    assert south.heard == {"pm": [], "gpio": [], "rcba": []}


def test_reset_announces_the_settings() -> None:
    """RESET#: the registers' reset values, which are what firmware would have programmed."""
    south = South(SERVER)
    south.put(PMBASE, 0x800)
    south.put(GC, 0)
    south.put(RCBA, 0)
    assert south.bases == (0x800, None, None)
    south.lpc.reset()
    assert south.bases == (0x400, 0x500, 0xFED1C000)


def test_restore_announces_the_saved_bases() -> None:
    south = South(SERVER)
    south.put(PMBASE, 0x800)
    saved = south.lpc.snapshot()
    south.lpc.reset()
    south.lpc.restore(saved)
    assert south.bases == (0x800, 0x500, 0xFED1C000)


def test_blocks_move_on_the_port_space() -> None:
    """The PM block and the GPIO block, with a hole for somebody else, where the bridge puts them."""
    board = Board()
    pm = AcpiPm(VirtualClock(), IrqLine(), lambda sleep_type: None)
    gpio = PchGpio(holes=[PortRange(0x510, 12, name="fw_cfg")])
    space = board.space
    for device in (pm, gpio):
        space.attach(device)
    bases = LpcBases(
        lambda base: space.remap(pm, AcpiPm.ranges(base)),
        lambda base: space.remap(gpio, gpio.ranges(base)),
        lambda base: None,
    )
    lpc = IchLpc({}, bases, SERVER)
    board.root.attach(lpc, SLOT)
    lpc.reset()
    owners = {port: board.owner(port) for port in (0x400, 0x45F, 0x460, 0x500, 0x50F, 0x510, 0x51B, 0x51C, 0x57F)}
    assert owners == {
        0x400: "acpi-pm", 0x45F: "acpi-pm", 0x460: "", 0x500: "gpio", 0x50F: "gpio", 0x510: "", 0x51B: "",
        0x51C: "gpio", 0x57F: "gpio",
    }  # fmt: skip
    board.put(SLOT, PMBASE, 0x1000)
    board.put(SLOT, GC, 0)
    assert [board.owner(port) for port in (0x400, 0x1000, 0x500)] == ["", "acpi-pm", ""]


# --- the interrupt router ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pirq", range(8))
def test_every_input_has_its_register(south: South, pirq: int) -> None:
    """PIRQA-D at 60-63, PIRQE-H at 68-6B."""
    south.put(0x60 + pirq if pirq < 4 else 0x68 + pirq - 4, 11, 1)
    for other in range(8):
        south.lpc.pirqs[other].set(1)
        assert south.raised() == ([11] if other == pirq else [])
        south.lpc.pirqs[other].set(0)


@pytest.mark.parametrize("irq", range(16))
def test_routing(south: South, irq: int) -> None:
    """PIRQx_ROUT 3:0: 0, 1, 2, 8 and 13 are reserved."""
    south.put(0x60, irq, 1)
    south.lpc.pirqs[0].set(1)
    assert south.raised() == ([] if irq in (0, 1, 2, 8, 13) else [irq])


def test_not_routed(south: South) -> None:
    """PIRQx_ROUT bit 7, set after reset."""
    south.lpc.pirqs[0].set(1)
    assert south.raised() == []
    assert south.lpc.router.route(0) is None
    south.put(0x60, 10, 1)
    assert south.raised() == [10]
    south.put(0x60, 0x80 | 10, 1)
    assert south.raised() == []


def test_inputs_on_one_interrupt_are_ored() -> None:
    south = South(SERVER)
    south.lpc.pirqs[0].set(1)
    south.lpc.pirqs[2].set(1)
    south.lpc.pirqs[0].set(0)
    assert south.raised() == [10]
    south.lpc.pirqs[2].set(0)
    assert south.raised() == []


def test_rerouting_moves_an_asserted_interrupt() -> None:
    south = South(SERVER)
    south.lpc.pirqs[0].set(1)
    south.put(0x60, 5, 1)
    assert south.raised() == [5]


def test_reset_and_restore_drive_the_lines() -> None:
    south = South()
    south.put(0x60, 10, 1)
    south.lpc.pirqs[0].set(1)
    saved = south.lpc.snapshot()
    south.lpc.reset()
    assert south.raised() == []
    south.lpc.restore(saved)
    assert south.raised() == [10]


def test_a_card_reaches_the_isa_interrupt() -> None:
    """A pin on the root bus, through a PIRQ, to the interrupt that it is routed to."""
    isa = {irq: IrqLine() for irq in range(16)}
    lpc = IchLpc(isa, LpcBases(*[lambda base: None] * 3), SERVER)
    root = PciHost(empty_space(), MmioSpace()).add_root(lines=lpc.pirqs[:4])
    card = Card(interrupt_pin=1)
    root.attach(card, 1)
    card.intx.set(1)
    assert [irq for irq, line in isa.items() if line.level] == [11]
