"""AHCI 1.3.1, 3.3 (port registers) and 10 (bringing ports up); the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from devices.ahci.ahci_host import AhciHost, cd, command_fis, control_fis, disk, started
from portvisor.devices.ahci import registers as r
from portvisor.devices.ahci.port import PortState


@pytest.fixture
def host() -> AhciHost:
    return AhciHost(disk(), None, cd())


def comreset(host: AhciHost, number: int = 0, control: int = 0) -> None:
    """10.4.2: DET 1, then 0."""
    port = host.ports()[number]
    port.write(r.PX_SCTL, control | 1)
    port.write(r.PX_SCTL, control)


# --- the link ------------------------------------------------------------------------------------------------


def test_an_empty_port(host: AhciHost) -> None:
    """3.3: no device: TFD 7F, SIG ones, SSTS 0."""
    empty = host.ports()[1]
    assert [empty.read(register) for register in (r.PX_TFD, r.PX_SIG, r.PX_SSTS, r.PX_SERR, r.PX_IS)] == [
        0x7F, 0xFFFFFFFF, 0, 0, 0,
    ]  # fmt: skip


def test_a_port_with_a_disk(host: AhciHost) -> None:
    """3.3.8-3.3.12: after power-up the signature FIS is in SIG and TFD, the link is active at 3 Gb/s."""
    assert host.port.read(r.PX_SIG) == 0x00000101
    assert host.port.read(r.PX_TFD) == 0x0150
    assert host.port.read(r.PX_SSTS) == 0x123
    assert host.port.read(r.PX_SERR) == r.SERR_DIAG_X | r.SERR_DIAG_N


def test_a_port_with_a_packet_device(host: AhciHost) -> None:
    """Serial ATA: signature EB140101; ATA-6, 9.12: a packet device does not set DRDY."""
    optical = host.ports()[2]
    assert optical.read(r.PX_SIG) == 0xEB140101
    assert optical.read(r.PX_TFD) == 0x0100


def test_held_in_comreset(host: AhciHost) -> None:
    """3.3.11, DET 1: no link, no signature, no status while it is held."""
    host.port.write(r.PX_SCTL, 1)
    assert [host.port.read(register) for register in (r.PX_SSTS, r.PX_SIG, r.PX_TFD)] == [0, 0xFFFFFFFF, 0x7F]
    host.port.write(r.PX_SCTL, 0)
    assert [host.port.read(register) for register in (r.PX_SSTS, r.PX_SIG, r.PX_TFD)] == [0x123, 0x101, 0x150]


def test_comreset_resets_the_drive(host: AhciHost) -> None:
    """10.4.2: a hardware reset of the device; settings made by commands are lost."""
    host.port.start()
    host.port.run(command_fis(0xC6, count=16))
    assert host.hba.drives[0] is not None
    assert getattr(host.hba.drives[0].state, "multiple") == 16  # noqa: B009 - of a disk's state
    host.port.write(r.PX_CMD, r.CMD_FRE)
    comreset(host)
    assert getattr(host.hba.drives[0].state, "multiple") == 0  # noqa: B009


def test_offline(host: AhciHost) -> None:
    """3.3.11, DET 4: the interface is disabled; SSTS.DET 4."""
    host.port.write(r.PX_SCTL, 4)
    assert host.port.read(r.PX_SSTS) == 0x004
    host.port.write(r.PX_SCTL, 1)
    assert host.port.read(r.PX_SSTS) == 0x000
    host.port.write(r.PX_SCTL, 0)
    assert host.port.read(r.PX_SSTS) == 0x123


@pytest.mark.parametrize(("limit", "speed"), [(0, 2), (1, 1), (2, 2), (3, 2)])
def test_speed_limit(host: AhciHost, limit: int, speed: int) -> None:
    """3.3.11, SPD: the highest speed that is negotiated at the next COMRESET."""
    comreset(host, control=limit << 4)
    assert host.port.read(r.PX_SSTS) == 0x103 | speed << 4
    assert host.port.read(r.PX_SCTL) == limit << 4


def test_link_up_is_reported(host: AhciHost) -> None:
    """3.3.5, 3.3.12: PCS follows DIAG.X, PRCS follows DIAG.N; they are cleared only through SERR."""
    host.port.write(r.PX_SERR, 0xFFFFFFFF)
    assert host.port.read(r.PX_IS) == 0
    comreset(host)
    assert host.port.read(r.PX_IS) == r.IS_PCS | r.IS_PRCS
    host.port.write(r.PX_IS, 0xFFFFFFFF)
    assert host.port.read(r.PX_IS) == r.IS_PCS | r.IS_PRCS
    host.port.write(r.PX_SERR, r.SERR_DIAG_X)
    assert host.port.read(r.PX_IS) == r.IS_PRCS
    host.port.write(r.PX_SERR, r.SERR_DIAG_N)
    assert host.port.read(r.PX_IS) == 0


def test_comreset_of_an_empty_port_reports_nothing(host: AhciHost) -> None:
    comreset(host, 1)
    assert host.ports()[1].read(r.PX_IS) == 0
    assert host.ports()[1].read(r.PX_SSTS) == 0


# --- registers -----------------------------------------------------------------------------------------------


def test_alignment_of_the_addresses(host: AhciHost) -> None:
    """3.3.1, 3.3.3: CLB is 1 KiB aligned, FB 256 bytes."""
    for register in (r.PX_CLB, r.PX_CLBU, r.PX_FB, r.PX_FBU):
        host.port.write(register, 0xFFFFFFFF)
    assert [host.port.read(register) for register in (r.PX_CLB, r.PX_CLBU, r.PX_FB, r.PX_FBU)] == [
        0xFFFFFC00, 0xFFFFFFFF, 0xFFFFFF00, 0xFFFFFFFF,
    ]  # fmt: skip


def test_interrupt_enable_bits(host: AhciHost) -> None:
    """3.3.6: reserved bits, and CPDE and DMPE without their capability, read 0."""
    host.port.write(r.PX_IE, 0xFFFFFFFF)
    assert host.port.read(r.PX_IE) == 0x7DC0007F


def test_read_only_port_registers(host: AhciHost) -> None:
    before = [host.port.read(register) for register in (r.PX_TFD, r.PX_SIG, r.PX_SSTS)]
    for register in (r.PX_TFD, r.PX_SIG, r.PX_SSTS):
        host.port.write(register, 0)
    assert [host.port.read(register) for register in (r.PX_TFD, r.PX_SIG, r.PX_SSTS)] == before


def test_cr_and_fr_follow_st_and_fre(host: AhciHost) -> None:
    """3.3.7: CR and FR tell when the engines run and have stopped."""
    base = r.CMD_SUD | r.CMD_POD
    assert host.port.read(r.PX_CMD) == base
    host.port.write(r.PX_CMD, r.CMD_FRE)
    assert host.port.read(r.PX_CMD) == base | r.CMD_FRE | r.CMD_FR
    host.port.write(r.PX_CMD, r.CMD_FRE | r.CMD_ST)
    assert host.port.read(r.PX_CMD) == base | r.CMD_FRE | r.CMD_FR | r.CMD_ST | r.CMD_CR
    host.port.write(r.PX_CMD, 0)
    assert host.port.read(r.PX_CMD) == base


def test_command_register_bits(host: AhciHost) -> None:
    """3.3.7: SUD and POD are 1 without staggered spin-up and cold presence; ICC reads 0 once it is done."""
    host.port.write(r.PX_CMD, 0xFFFFFFFF & ~r.CMD_ST & ~r.CMD_FRE)
    assert host.port.read(r.PX_CMD) == r.CMD_SUD | r.CMD_POD | r.CMD_ATAPI | r.CMD_DLAE
    host.port.write(r.PX_CMD, 0)
    assert host.port.read(r.PX_CMD) == r.CMD_SUD | r.CMD_POD


def test_ci_and_sact_need_st(host: AhciHost) -> None:
    """3.3.13, 3.3.14: bits are set only while ST is 1."""
    host.port.write(r.PX_SACT, 0xFF)
    host.port.write(r.PX_CI, 0xFF)
    assert (host.port.read(r.PX_SACT), host.port.read(r.PX_CI)) == (0, 0)


def test_clearing_st_clears_ci_sact_and_ccs() -> None:
    """3.3.7, ST: all of them are cleared by hardware."""
    host = started(disk())
    host.port.prepare(3, bytes(20))
    host.port.write(r.PX_SACT, 1 << 9)
    host.port.issue(3, 7)
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (0x88, 0x200)
    assert host.port.read(r.PX_CMD) & r.CMD_CCS == 3 << 8
    host.port.write(r.PX_CMD, r.CMD_FRE)
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (0, 0)
    assert host.port.read(r.PX_CMD) & r.CMD_CCS == 0


def test_current_command_slot() -> None:
    """3.3.7, CCS: the slot of the last command."""
    host = started(disk())
    for slot in (0, 17, 31):
        host.port.prepare(slot, command_fis(0xE5))
        host.port.issue(slot)
        assert host.port.read(r.PX_CMD) & r.CMD_CCS == slot << 8


# --- the signature FIS ---------------------------------------------------------------------------------------

SIGNATURE_FIS = bytes((0x34, 0x00, 0x50, 0x01, 0x01, 0x00, 0x00, 0x00)) + bytes(4) + b"\x01\x00" + bytes(6)


def test_the_first_d2h_fis_is_kept_until_fre(host: AhciHost) -> None:
    """3.3.7, FRE: the FIS after the initialization sequence is accepted without it, and posted with it."""
    host.port.addresses()
    assert host.port.d2h == bytes(20)
    host.port.write(r.PX_CMD, r.CMD_FRE)
    assert host.port.d2h == SIGNATURE_FIS
    host.port.forget()
    host.port.write(r.PX_CMD, 0)
    host.port.write(r.PX_CMD, r.CMD_FRE)
    assert host.port.d2h == bytes(20)


def test_the_first_d2h_fis_waits_for_bus_master(host: AhciHost) -> None:
    host.port.addresses()
    host.set_command(0x3)
    host.port.write(r.PX_CMD, r.CMD_FRE)
    assert host.port.d2h == bytes(20)
    host.set_command(0x7)
    assert host.port.d2h == SIGNATURE_FIS


def test_comreset_with_fre_posts_the_signature(host: AhciHost) -> None:
    host.port.start()
    host.port.write(r.PX_CMD, r.CMD_FRE)
    host.port.forget()
    comreset(host)
    assert host.port.d2h == SIGNATURE_FIS
    assert not host.port.read(r.PX_IS) & r.IS_DHRS, "its I bit is 0"


# --- software reset ------------------------------------------------------------------------------------------


def software_reset(host: AhciHost, *, clear_busy: bool) -> None:
    """10.4.1: a control FIS with SRST, another without."""
    port = host.port
    port.prepare(0, control_fis(True), flags=1 << 8 | (1 << 10 if clear_busy else 0))
    port.prepare(1, control_fis(False))
    port.issue(0)
    port.issue(1)


def test_software_reset() -> None:
    """10.4.1: the signature comes with the second FIS, without interrupt; PxCI is clear."""
    host = started(disk())
    host.port.run(command_fis(0xC6, count=16))
    host.port.forget()
    software_reset(host, clear_busy=True)
    assert host.port.read(r.PX_CI) == 0
    assert host.port.read(r.PX_TFD) == 0x0150
    assert host.port.d2h == SIGNATURE_FIS
    assert host.port.read(r.PX_IS) == 0


def test_software_reset_of_a_packet_device() -> None:
    host = started(cd())
    software_reset(host, clear_busy=True)
    assert host.port.read(r.PX_SIG) == 0xEB140101
    assert host.port.read(r.PX_TFD) & 0x88 == 0


def test_busy_between_the_two_control_fises() -> None:
    """4.2.2, bit C: BSY is cleared once the FIS is sent, so that the second can go out."""
    host = started(disk())
    host.port.prepare(0, control_fis(True), flags=1 << 8 | 1 << 10)
    host.port.issue(0)
    assert host.port.read(r.PX_CI) == 0
    assert not host.port.read(r.PX_TFD) & 0x80


def test_without_the_c_bit_the_port_stays_busy() -> None:
    """4.2.2, bit C: software has to set it; CLO gets the port out (3.3.7)."""
    host = started(disk())
    software_reset(host, clear_busy=False)
    assert host.port.read(r.PX_TFD) & 0x80
    assert host.port.read(r.PX_CI) == 3
    host.port.write(r.PX_CMD, r.CMD_FRE)
    host.port.write(r.PX_CMD, r.CMD_FRE | r.CMD_CLO)
    assert not host.port.read(r.PX_TFD) & 0x88
    host.port.restart()
    software_reset(host, clear_busy=True)
    assert host.port.read(r.PX_TFD) == 0x0150


def test_a_command_to_a_drive_in_reset_is_not_answered() -> None:
    """ATA-6, 9.2: SRST holds the device."""
    host = started(disk())
    host.port.prepare(0, control_fis(True), flags=1 << 8 | 1 << 10)
    host.port.issue(0)
    host.port.prepare(1, command_fis(0xE5))
    host.port.issue(1)
    assert host.port.read(r.PX_CI) == 2
    assert host.port.read(r.PX_TFD) & 0x80


def test_a_control_fis_without_srst_is_no_reset() -> None:
    """Serial ATA: device control alone is not answered; with C the slot is free."""
    host = started(disk())
    host.port.forget()
    host.port.prepare(0, control_fis(False), flags=1 << 10)
    host.port.issue(0)
    assert host.port.read(r.PX_CI) == 0
    assert host.port.d2h == bytes(20)


# --- CLO -----------------------------------------------------------------------------------------------------


def test_command_list_override() -> None:
    """3.3.7: clears BSY and DRQ, reads 0 again."""
    host = AhciHost(None)
    host.port.write(r.PX_CMD, r.CMD_CLO)
    assert host.port.read(r.PX_TFD) == 0x77
    assert not host.port.read(r.PX_CMD) & r.CMD_CLO


def test_command_list_override_needs_st_clear() -> None:
    """3.3.7: only just before ST is set."""
    host = AhciHost(None)
    host.port.write(r.PX_CMD, r.CMD_ST)
    host.port.write(r.PX_CMD, r.CMD_ST | r.CMD_CLO)
    assert host.port.read(r.PX_TFD) == 0x7F


def test_a_command_to_nobody_is_not_answered() -> None:
    host = AhciHost(None)
    host.port.write(r.PX_CMD, r.CMD_CLO)
    host.port.start()
    host.port.run(command_fis(0xEC))
    assert host.port.read(r.PX_CI) == 1
    assert host.port.read(r.PX_TFD) & 0x80


def test_port_state_is_plain() -> None:
    """A snapshot compares and copies by value."""
    assert PortState() == PortState()
