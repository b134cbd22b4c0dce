"""AHCI 1.3.1, chapters 2, 3.1 and 10, and the C610 data sheet; the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from devices.ahci.ahci_host import ABAR, BARS, BUFFERS, DATA, INDEX, AhciHost, cd, command_fis, disk, started
from devices.pci.board import Board
from portvisor.backends.image import MemoryImage
from portvisor.devices.ahci import Ahci
from portvisor.devices.ahci import registers as r
from portvisor.devices.ahci.hba import SSATA_AHCI
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.ports import Ram, SnapshotError
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    ACCESSES = 1_500

    def make(self) -> Ahci:
        return AhciHost(disk(), None, cd()).hba


class TestEmptySuite(DeviceSuite):
    ACCESSES = 1_000

    def make(self) -> Ahci:
        return AhciHost(None, None, None, None).hba


# --- configuration space -------------------------------------------------------------------------------------


def test_identity() -> None:
    """C610 14.1: 8086:8D02, AHCI 1.0 programming interface."""
    host = AhciHost()
    assert host.config(0x00) == 0x8D028086
    assert host.config(0x08) >> 8 == 0x010601
    assert host.config(0x3D, 1) == 1


def test_identity_of_the_second_controller() -> None:
    hba = Ahci(Ram(), [None], identity=SSATA_AHCI)
    Board().root.attach(hba, 0x11, 4)
    assert hba.config_read(2, 2) == 0x8D62


def test_bars_at_the_seeds_addresses() -> None:
    """Every BAR answers; legacy blocks read ones."""
    host = AhciHost()
    for number, (base, size) in BARS.items():
        assert host.config(0x10 + 4 * number) == base | 1
        assert all(host.board.owner(port) == "ahci" for port in range(base, base + size))
        if number < 4:
            assert host.board.space.read(base, 4) == 0xFFFFFFFF
    assert host.config(0x24) == ABAR


def test_sata_capability() -> None:
    """C610 14.1: ID 12h, revision 1.0; BAR 4 (code 8), index/data pair at dword 4."""
    host = AhciHost()
    assert host.config(0x06, 2) & 0x10
    assert host.config(0x34, 1) == 0xA8
    assert host.config(0xA8) == 0x00100012
    assert host.config(0xAC) == 0x00000048


def test_map_and_pcs() -> None:
    """C610 14.1: AHCI mode; enabled ports in 5:0, ports with a drive from bit 8."""
    host = AhciHost(disk(), None, cd())
    assert host.config(0x90, 2) == 0x0040
    assert host.config(0x92, 2) == 0x0507


def test_without_legacy_bars() -> None:
    """An adapter that shows only BAR 4 and 5."""
    hba = Ahci(Ram(), [None], legacy_bars=False)
    Board().root.attach(hba, 2)
    assert [hba.config_read(0x10 + 4 * number, 4) for number in range(4)] == [0] * 4
    hba.config_write(0x20, 4, 0xFFFFFFFF)
    assert hba.config_read(0x20, 4) == 0xFFFFFFE1


@pytest.mark.parametrize("count", [0, 15])
def test_number_of_ports(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} ports"):
        Ahci(Ram(), [None] * count)


def test_a_cable_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="SATA"):
        Ahci(Ram(), [AtaDisk(MemoryImage(512))])


# --- generic host control ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ports", [1, 4, 6])
def test_capabilities(ports: int) -> None:
    """3.1.1: 64-bit, NCQ, CLO, AHCI only, PIO multiple DRQ; 32 slots; number of ports."""
    host = AhciHost(*[None] * ports)
    capabilities = host.read(r.CAP)
    for bit in (31, 30, 24, 18, 15):
        assert capabilities >> bit & 1
    assert (capabilities >> 8 & 0x1F, capabilities & 0x1F) == (31, ports - 1)
    assert host.read(r.PI) == (1 << ports) - 1


def test_read_only_registers() -> None:
    """3.1: CAP, PI, VS, CAP2; AE is fixed if CAP.SAM is set."""
    host = AhciHost()
    before = [host.read(register) for register in (r.CAP, r.PI, r.VS, r.CAP2, 0x28)]
    for register in (r.CAP, r.PI, r.VS, r.CAP2, 0x28):
        host.write(register, 0xFFFFFFFF)
    assert [host.read(register) for register in (r.CAP, r.PI, r.VS, r.CAP2, 0x28)] == before
    assert before[2] == 0x00010300
    host.write(r.GHC, 0)
    assert host.read(r.GHC) == r.GHC_AE


def test_ports_that_are_not_there() -> None:
    """3.3: registers of a port without its PI bit read 0."""
    host = AhciHost(None)
    host.write(0x180, 0xFFFFFFFF)
    assert all(host.read(0x180 + offset) == 0 for offset in range(0, 0x80, 4))


def test_hba_reset() -> None:
    """10.4.3: HR reads 0 again; IE, IS and port registers are reset, PxCLB and PxFB are not."""
    host = started(disk())
    host.port.run(command_fis(0xE5))
    assert host.line
    host.write(r.GHC, r.GHC_HR | r.GHC_AE)
    assert host.read(r.GHC) == r.GHC_AE
    assert host.read(r.IS) == 0
    assert not host.line
    assert host.port.read(r.PX_CMD) == r.CMD_SUD | r.CMD_POD
    assert host.port.read(r.PX_IE) == 0
    assert host.port.read(r.PX_CLB) == host.port.lists
    assert host.port.read(r.PX_FB) == host.port.fises
    assert host.port.read(r.PX_SIG) == 0x00000101
    assert host.port.read(r.PX_TFD) == 0x0150


def test_the_drive_is_usable_after_an_hba_reset() -> None:
    host = started(disk())
    host.write(r.GHC, r.GHC_HR | r.GHC_AE)
    host.port.start()
    host.port.run(command_fis(0xEC), [(BUFFERS, 512)])
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


# --- interrupts ----------------------------------------------------------------------------------------------


def test_two_tiers() -> None:
    """10.7.2.1: PxIS and PxIE set IS, IS and GHC.IE the interrupt; clearing PxIS alone leaves IS set."""
    host = started(disk())
    host.port.run(command_fis(0xE5))
    assert host.port.read(r.PX_IS) == r.IS_DHRS
    assert host.read(r.IS) == 1
    assert host.line == 1
    host.port.write(r.PX_IS, r.IS_DHRS)
    assert (host.read(r.IS), host.line) == (1, 1)
    host.write(r.IS, 1)
    assert (host.read(r.IS), host.line) == (0, 0)


def test_is_cannot_be_cleared_before_its_cause() -> None:
    """10.7.2.1: with PxIS and PxIE still set the bit is set again."""
    host = started(disk())
    host.port.run(command_fis(0xE5))
    host.write(r.IS, 1)
    assert (host.read(r.IS), host.line) == (1, 1)


def test_disabled_interrupts_do_not_latch() -> None:
    """3.3.6: PxIE gates IS, not PxIS; enabling later shows the old cause."""
    host = started(disk(), enabled=0)
    host.port.run(command_fis(0xE5))
    assert (host.port.read(r.PX_IS), host.read(r.IS), host.line) == (r.IS_DHRS, 0, 0)
    host.port.write(r.PX_IE, r.IS_DHRS)
    assert (host.read(r.IS), host.line) == (1, 1)


def test_global_enable() -> None:
    """3.1.2: GHC.IE gates the line, not IS."""
    host = started(disk())
    host.write(r.GHC, r.GHC_AE)
    host.port.run(command_fis(0xE5))
    assert (host.read(r.IS), host.line) == (1, 0)
    host.write(r.GHC, r.GHC_AE | r.GHC_IE)
    assert host.line == 1


def test_every_port_has_its_bit() -> None:
    host = started(disk(), None, disk())
    first, _, third = host.ports()
    first.run(command_fis(0xE5))
    third.prepare(0, command_fis(0xE5))
    third.issue(0)
    assert host.read(r.IS) == 0b101
    for driver in (first, third):
        driver.write(r.PX_IS, 0xFFFFFFFF)
    host.write(r.IS, 0b001)
    assert (host.read(r.IS), host.line) == (0b100, 1)


def test_intx_disable() -> None:
    """PCI 3.0, 6.2.2: COMMAND bit 10 keeps the line down, STATUS bit 3 shows the request."""
    host = started(disk())
    host.set_command(0x407)
    host.port.run(command_fis(0xE5))
    assert host.line == 0
    assert host.config(0x06, 2) & 0x8
    host.set_command(0x007)
    assert host.line == 1


# --- widths and the index/data pair --------------------------------------------------------------------------


def test_bytes_and_words_of_registers() -> None:
    host = started(disk())
    value = host.read(r.CAP)
    for size in (1, 2):
        for offset in range(0, 4, size):
            expected = value >> 8 * offset & (1 << 8 * size) - 1
            assert host.read(r.CAP + offset, size) == expected


def test_an_access_across_two_registers() -> None:
    """Not allowed by 3.0; here it reaches the bytes it names."""
    host = AhciHost()
    both = host.read(r.PI) | host.read(r.VS) << 32
    for offset in range(4):
        assert host.read(r.PI + offset) == both >> 8 * offset & 0xFFFFFFFF
    host.write(0x100 + r.PX_CLB + 2, 0xAABBCCDD)
    assert host.port.read(r.PX_CLB) == 0xCCDD0000
    assert host.port.read(r.PX_CLBU) == 0x0000AABB


def test_a_byte_write_keeps_the_other_bytes() -> None:
    host = AhciHost()
    host.port.write(r.PX_FB, 0x11223300)
    host.write(0x100 + r.PX_FB + 2, 0xEE, 1)
    assert host.port.read(r.PX_FB) == 0x11EE3300


def test_a_byte_write_clears_only_its_own_bits() -> None:
    """A write-1-to-clear register: bytes that are not written do not act."""
    host = started(disk())
    host.port.write(r.PX_SCTL, 1)
    host.port.write(r.PX_SCTL, 0)
    assert host.port.read(r.PX_SERR) == r.SERR_DIAG_X | r.SERR_DIAG_N
    host.write(0x100 + r.PX_SERR + 3, 0xFF, 1)
    assert host.port.read(r.PX_SERR) == r.SERR_DIAG_N


def test_quadword_access() -> None:
    """3.0: a quadword access is two dwords."""
    host = AhciHost()
    host.write(0x100 + r.PX_CLB, 0x1_2345_6400, 8)
    assert (host.port.read(r.PX_CLB), host.port.read(r.PX_CLBU)) == (0x23456400, 1)
    assert host.read(0x100 + r.PX_CLB, 8) == 0x1_2345_6400


def test_index_data_pair_is_a_window_on_bar_5() -> None:
    """C610 14.3: AINDX 10:2, ADATA."""
    host = started(disk())
    space = host.board.space
    for register in (r.CAP, r.GHC, r.PI, r.VS, 0x100 + r.PX_SSTS, 0x100 + r.PX_SIG, 0x100 + r.PX_CMD):
        space.write(INDEX, 4, register)
        assert space.read(INDEX, 4) == register
        assert space.read(DATA, 4) == host.read(register)
    space.write(INDEX, 4, 0x100 + r.PX_IE)
    space.write(DATA, 4, r.IS_DHRS)
    assert host.port.read(r.PX_IE) == r.IS_DHRS


def test_index_keeps_its_bits() -> None:
    host = AhciHost()
    host.board.space.write(INDEX, 4, 0xFFFFFFFF)
    assert host.board.space.read(INDEX, 4) == 0x7FC


def test_a_command_through_the_index_data_pair() -> None:
    host = started(disk())
    host.port.prepare(0, command_fis(0xEC), [(BUFFERS, 512)])
    host.board.space.write(INDEX, 4, 0x100 + r.PX_CI)
    host.board.space.write(DATA, 4, 1)
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_register_names() -> None:
    """For traces: the pair shows which register it reaches."""
    host = AhciHost()
    hba, space = host.hba, host.board.space
    space.write(INDEX, 4, 0x100 + r.PX_CI)
    names = {}
    for port in (INDEX, DATA, 0x3060, 0x3020):
        owner = space.owner(port, 4) or space.owner(port, 1)
        assert owner is not None
        offset = next(one.offset + port - one.base for one in hba.ports if one.base <= port <= one.last)
        names[port] = hba.register_name(offset, 4, False)
    assert names == {INDEX: "AINDX", DATA: "ADATA P0CI", 0x3060: "legacy IDE", 0x3020: "bus master"}


# --- bus mastering -------------------------------------------------------------------------------------------


def test_commands_wait_for_bus_master() -> None:
    """PCI 3.0, 6.2.2, COMMAND bit 2: no DMA; the command is carried out when it is allowed."""
    host = started(disk())
    host.port.prepare(0, command_fis(0xEC), [(BUFFERS, 512)])
    host.set_command(0x3)
    host.port.issue(0)
    assert host.port.read(r.PX_CI) == 1
    assert host.ram.read(BUFFERS, 512) == bytes(512)
    host.set_command(0x7)
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"
    assert host.line == 1


# --- snapshots -----------------------------------------------------------------------------------------------


def test_restore_brings_interrupts_and_running_ports_back() -> None:
    host = started(disk())
    host.port.run(command_fis(0xE5))
    saved = host.hba.snapshot()
    host.hba.reset()
    assert host.line == 0
    host.hba.restore(saved)
    assert host.line == 1
    host.port.forget()
    host.port.run(command_fis(0xEC), [(BUFFERS, 512)])
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_a_snapshot_after_a_comreset_has_the_drives_present_state() -> None:
    """A hardware reset gives the drive a new state; the snapshot must follow it."""
    host = started(disk())
    host.port.write(r.PX_CMD, r.CMD_FRE)
    host.port.write(r.PX_SCTL, 1)
    host.port.write(r.PX_SCTL, 0)
    host.port.restart()
    host.port.run(command_fis(0xEF, count=0x45, features=0x03))
    saved = host.hba.snapshot()
    host.port.run(command_fis(0xEF, count=0x42, features=0x03))
    host.hba.restore(saved)
    host.port.run(command_fis(0xEC), [(BUFFERS, 512)])
    assert int.from_bytes(host.ram.read(BUFFERS + 176, 2), "little") == 0x207F, "word 88: Ultra DMA 5 selected"


def test_a_snapshot_with_other_drives_is_refused() -> None:
    saved = AhciHost(disk(), None).hba.snapshot()
    with pytest.raises(SnapshotError, match="other drives"):
        AhciHost(disk(), cd()).hba.restore(saved)
