"""The disk's commands through a legacy channel, and at drive level for an AHCI port (T13/1410D ATA-6)."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.ide.ata_host import (
    COMMAND,
    COUNT,
    DEVICE,
    ERROR,
    FAILED,
    FEATURES,
    HIGH,
    LOW,
    MID,
    READY,
    READY_DRQ,
    STATUS,
    AtaHost,
)
from portvisor.backends.image import MemoryImage
from portvisor.devices.ide import AtaDisk, Identity, Transport
from portvisor.devices.ide.ata_disk import Geometry
from portvisor.devices.ide.drive import DATA_IN, DATA_OUT, IDLE
from portvisor.devices.ide.registers import ABRT, DRQ, HOB, IDNF, UNC

READS28, READS48 = (0x20, 0x21, 0xC4), (0x24, 0x29)
WRITES28, WRITES48 = (0x30, 0x31, 0xC5), (0x34, 0x39, 0xCE)
BIG = 1 << 28


def content(sectors: int) -> bytes:
    return b"".join(index.to_bytes(4, "little") * 128 for index in range(sectors))


class Medium(MemoryImage):
    """Remembers calls; sectors in `bad` cannot be read or written."""

    def __init__(self, data: bytes | int, *, read_only: bool = False) -> None:
        super().__init__(data, read_only=read_only)
        self.bad: set[int] = set()
        self.calls: list[tuple[str, int, int]] = []
        self.flushes = 0
        self.flush_fails = False

    def _touch(self, kind: str, sector: int, count: int) -> None:
        self.calls.append((kind, sector, count))
        if self.bad & set(range(sector, sector + count)):
            raise OSError(errno.EIO, "bad sector")

    def read(self, sector: int, count: int) -> bytes:
        self._touch("read", sector, count)
        return super().read(sector, count)

    def write(self, sector: int, data: bytes) -> None:
        self._touch("write", sector, len(data) // 512)
        super().write(sector, data)

    def flush(self) -> None:
        self.flushes += 1
        if self.flush_fails:
            raise OSError(errno.EIO, "cannot")


class HugeMedium:
    """A medium of any size whose sectors hold their number; writes are forgotten."""

    read_only = False

    def __init__(self, sectors: int) -> None:
        self.sectors = sectors
        self.largest = 0

    def read(self, sector: int, count: int) -> bytes:
        assert sector >= 0
        assert sector + count <= self.sectors
        self.largest = max(self.largest, count)
        return b"".join((sector + index).to_bytes(8, "little") * 64 for index in range(count))

    def write(self, sector: int, data: bytes) -> None:
        assert sector + len(data) // 512 <= self.sectors
        self.largest = max(self.largest, len(data) // 512)

    def flush(self) -> None:
        pass


@pytest.fixture
def medium() -> Medium:
    return Medium(content(4000))


@pytest.fixture
def host(medium: Medium) -> AtaHost:
    return AtaHost(AtaDisk(medium))


def set_multiple(host: AtaHost, count: int) -> None:
    host.put(COUNT, count)
    assert host.no_data(0xC6).good


class TestIdentify:
    def test_geometry_and_sizes(self, host: AtaHost) -> None:
        words = host.identify()
        assert words[0] & 0x8000 == 0
        assert words[0] & 0x0040
        assert (words[1], words[3], words[6]) == (3, 16, 63)
        assert words[60] | words[61] << 16 == 4000
        assert words[100] | words[101] << 16 | words[102] << 32 | words[103] << 48 == 4000
        assert words[53] & 0x0007 == 0x0007
        assert words[54:57] == [3, 16, 63]
        assert words[57] | words[58] << 16 == 3 * 16 * 63

    def test_strings_have_their_first_character_in_the_upper_byte(self) -> None:
        identity = Identity(model="Model X", serial="S123", firmware="F1")
        words = AtaHost(AtaDisk(MemoryImage(512), identity)).identify()

        def text(first: int, last: int) -> str:
            return b"".join(word.to_bytes(2, "big") for word in words[first : last + 1]).decode("ascii")

        assert text(10, 19) == "S123".ljust(20)
        assert text(23, 26) == "F1".ljust(8)
        assert text(27, 46) == "Model X".ljust(40)

    @pytest.mark.parametrize("change", [{"model": "m" * 41}, {"serial": "s" * 21}, {"firmware": "ä"}])
    def test_strings_that_do_not_fit(self, change: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=r"at most .* printable ASCII characters"):
            Identity(**({"model": "m", "serial": "s", "firmware": "f"} | change))

    def test_all_bytes_add_up_to_zero(self, host: AtaHost) -> None:
        data = host.data_in(0xEC).data
        assert data[510] == 0xA5
        assert sum(data) % 256 == 0

    def test_support_bits_and_enabled_bits(self, host: AtaHost) -> None:
        words = host.identify()
        for word in (83, 84, 87):
            assert words[word] >> 14 == 1
        assert words[83] & 0x0400, "48-bit addresses"
        assert words[86] & 0x0400
        assert words[83] & 0x3000 == words[86] & 0x3000 == 0x3000, "FLUSH CACHE and FLUSH CACHE EXT"
        assert words[82] & 0x0008, "power management is mandatory"
        assert words[80] & 0x0040, "ATA-6"
        assert words[64] & 3 == 3, "PIO 3 and 4"
        assert words[49] & 0x0A00 == 0x0A00, "LBA, IORDY"

    def test_pio_channel_offers_no_dma(self, host: AtaHost) -> None:
        words = host.identify()
        assert not words[49] & 0x0100
        assert words[63] == words[88] == 0
        for code in (0x25, 0x35, 0x3D, 0x60, 0x61, 0xC8, 0xC9, 0xCA, 0xCB):
            host.lba28(0)
            assert host.no_data(code).error == ABRT

    def test_sata_offers_dma_and_queueing(self) -> None:
        words = AtaHost(AtaDisk(MemoryImage(512), transport=Transport.SATA)).identify()
        assert words[49] & 0x0100
        assert words[63] & 7 == 7
        assert words[88] & 0x3F == 0x3F
        assert words[75] == 31
        assert words[76] & 0x0100
        assert words[80:82] == [0x00F0, 0], "up to ATA-7, no minor version"
        assert words[84] == words[87] == 0x4060
        assert words[93] == 0

    def test_settings_show(self, host: AtaHost) -> None:
        assert host.identify()[59] == 0
        set_multiple(host, 8)
        words = host.identify()
        assert words[59] == 0x0108
        assert words[47] == 0x8010
        assert words[85] & 0x0060 == 0x0060
        host.put(FEATURES, 0x82)
        assert host.no_data(0xEF).good
        host.put(FEATURES, 0x55)
        assert host.no_data(0xEF).good
        assert host.identify()[85] & 0x0060 == 0

    @pytest.mark.parametrize("sectors", [BIG - 1, BIG, BIG + 5, (1 << 48) - 1, 1 << 48])
    def test_sizes_beyond_28_bits(self, sectors: int) -> None:
        words = AtaHost(AtaDisk(HugeMedium(sectors))).identify()
        assert words[60] | words[61] << 16 == BIG - 1
        assert words[100] | words[101] << 16 | words[102] << 32 | words[103] << 48 == min(sectors, (1 << 48) - 1)
        assert (words[1], words[3], words[6]) == (16383, 16, 63)

    @pytest.mark.parametrize("sectors", [0, (1 << 48) + 1])
    def test_impossible_sizes(self, sectors: int) -> None:
        with pytest.raises(ValueError, match=f"disk of {sectors} sectors"):
            AtaDisk(HugeMedium(sectors))


class TestRead:
    @pytest.mark.parametrize("code", [0x20, 0x21])
    def test_status_sequence_and_registers(self, host: AtaHost, code: int) -> None:
        host.lba28(0x123, 2)
        assert host.command(code) == READY_DRQ
        assert host.words() == content(0x124)[-512:]
        assert host.get(STATUS) == READY_DRQ
        assert host.words() == content(0x125)[-512:]
        assert host.get(STATUS) == READY
        assert host.get(ERROR) == 0
        assert host.block() == [0, 0x24, 1, 0], "no sector left, the last one's address"
        assert host.get(DEVICE) == 0xE0

    def test_count_0_is_256(self, host: AtaHost) -> None:
        host.lba28(1, 0)
        assert host.data_in(0x20).data == content(257)[512:]

    def test_count_0_ext_is_65536_and_streams(self) -> None:
        medium = HugeMedium(70_000)
        host = AtaHost(AtaDisk(medium))
        host.put(COUNT, 16)
        assert host.no_data(0xC6).good
        host.lba48(1, 0)
        host.put(COMMAND, 0x29)
        for first in range(1, 65_537, 16):
            assert host.words(256 * 16)[-8:] == (first + 15).to_bytes(8, "little")
        assert host.get(STATUS) == READY
        assert medium.largest == 16

    def test_lba_28_reaches_over_24_bits(self) -> None:
        host = AtaHost(AtaDisk(HugeMedium(BIG)))
        host.lba28(0xABCDEF0, 1)
        assert host.data_in(0x20).data[:8] == (0xABCDEF0).to_bytes(8, "little")
        assert host.get(DEVICE) == 0xEA

    def test_lba_48(self) -> None:
        host = AtaHost(AtaDisk(HugeMedium(1 << 48)))
        host.lba48(0x123456789ABC, 2)
        result = host.data_in(0x24)
        assert result.data[512:520] == (0x123456789ABD).to_bytes(8, "little")
        assert host.block() == [0, 0xBD, 0x9A, 0x78]
        host.control(HOB)
        assert host.block() == [0, 0x56, 0x34, 0x12]

    @pytest.mark.parametrize("multiple", [1, 2, 8, 16])
    @pytest.mark.parametrize("count", [1, 7, 8, 33])
    def test_multiple_with_a_short_last_block(self, host: AtaHost, multiple: int, count: int) -> None:
        set_multiple(host, multiple)
        host.lba28(10, count)
        host.interrupts()
        host.put(COMMAND, 0xC4)
        data = b""
        while host.get(STATUS) & DRQ:
            left = count - len(data) // 512
            data += host.words(256 * min(multiple, left))
        assert data == content(10 + count)[10 * 512 :]
        assert host.interrupts() == -(-count // multiple)

    def test_one_host_read_for_each_block(self, host: AtaHost, medium: Medium) -> None:
        set_multiple(host, 16)
        host.lba28(0, 20)
        host.put(COMMAND, 0xC4)
        host.words(256 * 20)
        assert medium.calls == [("read", 0, 16), ("read", 16, 4)]

    def test_multiple_is_disabled_after_power_on(self, host: AtaHost) -> None:
        host.lba28(0)
        assert host.no_data(0xC4).error == ABRT
        assert host.no_data(0xC5).error == ABRT

    def test_host_error_is_unc_at_the_bad_sector(self, host: AtaHost, medium: Medium) -> None:
        medium.bad = {13}
        host.lba28(10, 8)
        result = host.data_in(0x20)
        assert (result.status, result.error) == (FAILED, UNC)
        assert result.data == content(13)[10 * 512 :]
        assert host.block() == [5, 13, 0, 0]

    def test_host_error_inside_a_block(self, host: AtaHost, medium: Medium) -> None:
        set_multiple(host, 16)
        medium.bad = {13}
        host.interrupts()
        host.lba48(10, 8)
        result = host.data_in(0x29, 16)
        assert (result.status, result.error, result.data) == (FAILED, UNC, b"")
        assert host.block() == [5, 13, 0, 0]
        assert host.interrupts() == 1

    def test_short_read_is_unc(self, host: AtaHost, medium: Medium, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(medium, "read", lambda sector, count: b"short")
        host.lba28(0)
        assert host.data_in(0x20).error == UNC

    def test_abandoned_transfer_gives_way_to_a_new_command(self, host: AtaHost) -> None:
        host.lba28(0, 8)
        host.put(COMMAND, 0x20)
        host.words(10)
        assert host.identify()[0] == 0x0040


class TestWrite:
    @pytest.mark.parametrize("code", [0x30, 0x31])
    def test_status_sequence_and_registers(self, host: AtaHost, medium: Medium, code: int) -> None:
        host.lba28(0x20, 2)
        assert host.command(code) == READY_DRQ
        host.send(b"a" * 512)
        assert host.get(STATUS) == READY_DRQ
        assert medium.data[0x20 * 512 :][:512] == b"a" * 512, "a full block is written at once"
        host.send(b"b" * 512)
        assert host.get(STATUS) == READY
        assert medium.data[0x21 * 512 :][:512] == b"b" * 512
        assert host.block() == [0, 0x21, 0, 0]

    def test_half_a_block_is_not_written(self, host: AtaHost, medium: Medium) -> None:
        host.lba28(0)
        host.put(COMMAND, 0x30)
        host.send(b"a" * 510)
        host.software_reset()
        host.send(b"a" * 2)
        assert medium.data == content(4000)

    @pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
    def test_multiple(self, host: AtaHost, medium: Medium, count: int) -> None:
        set_multiple(host, 16)
        data = content(count)[::-1]
        host.lba28(5, count)
        assert host.data_out(0xC5, data, 16).good
        assert medium.data[5 * 512 : (5 + count) * 512] == data
        assert len(medium.calls) == -(-count // 16)

    def test_count_0_is_256(self, host: AtaHost, medium: Medium) -> None:
        host.lba28(0, 0)
        assert host.data_out(0x30, bytes(256 * 512)).good
        assert medium.data == bytes(256 * 512) + content(4000)[256 * 512 :]

    @pytest.mark.parametrize("code", [0x30, 0x31, 0x34, 0x39, 0xC5, 0xCE])
    def test_read_only_medium_aborts_without_drq(self, code: int) -> None:
        host = AtaHost(AtaDisk(MemoryImage(512, read_only=True)))
        set_multiple(host, 1)
        host.lba48(0)
        assert host.command(code) == FAILED
        assert host.get(ERROR) == ABRT

    def test_host_error_aborts_with_the_block_in_the_registers(self, host: AtaHost, medium: Medium) -> None:
        medium.bad = {12}
        host.lba28(10, 5)
        result = host.data_out(0x30, bytes(5 * 512))
        assert (result.status, result.error) == (FAILED, ABRT)
        assert host.block() == [3, 12, 0, 0]
        assert medium.data[10 * 512 : 12 * 512] == bytes(1024)

    def test_write_cache_off_flushes_at_the_end_of_each_command(self, host: AtaHost, medium: Medium) -> None:
        host.put(FEATURES, 0x82)
        assert host.no_data(0xEF).good
        before = medium.flushes
        host.lba28(0, 3)
        assert host.data_out(0x30, bytes(1536)).good
        assert medium.flushes == before + 1
        medium.flush_fails = True
        host.lba28(0)
        assert host.data_out(0x30, bytes(512)).error == ABRT

    def test_write_cache_on_does_not_flush(self, host: AtaHost, medium: Medium) -> None:
        host.lba28(0)
        assert host.data_out(0x30, bytes(512)).good
        assert medium.flushes == 0

    def test_fua_flushes(self, host: AtaHost, medium: Medium) -> None:
        set_multiple(host, 2)
        host.lba48(0)
        assert host.data_out(0xCE, bytes(512)).good
        assert medium.flushes == 1


class TestAddresses:
    @pytest.mark.parametrize(
        ("lba", "count", "first_bad"),
        [(4000, 1, 4000), (3999, 2, 4000), (3900, 0, 4000), (0xFFFFFFF, 1, 0xFFFFFFF)],
    )
    @pytest.mark.parametrize("code", [0x20, 0x30, 0x40])
    def test_lba_28_outside_is_idnf_before_any_data(
        self, host: AtaHost, medium: Medium, code: int, lba: int, count: int, first_bad: int
    ) -> None:
        host.lba28(lba, count)
        assert host.command(code) == FAILED
        assert host.get(ERROR) == IDNF
        assert host.get(LOW) | host.get(MID) << 8 | host.get(HIGH) << 16 == first_bad & 0xFFFFFF
        assert not medium.calls

    @pytest.mark.parametrize("lba", [4000, 1 << 24, (1 << 48) - 1])
    @pytest.mark.parametrize("code", [0x24, 0x34, 0x42])
    def test_lba_48_outside(self, host: AtaHost, lba: int, code: int) -> None:
        host.lba48(lba, 1)
        assert host.command(code) == FAILED
        assert host.get(ERROR) == IDNF

    def test_lba_48_does_not_wrap(self) -> None:
        host = AtaHost(AtaDisk(HugeMedium(1 << 48)))
        host.lba48((1 << 48) - 1, 1)
        assert host.data_in(0x24).good
        host.lba48((1 << 48) - 1, 2)
        assert host.data_in(0x24).error == IDNF

    def test_lba_28_does_not_run_over_28_bits(self) -> None:
        host = AtaHost(AtaDisk(HugeMedium(BIG + 100)))
        host.lba28(BIG - 2, 2)
        assert host.data_in(0x20).good
        host.lba28(BIG - 2, 3)
        assert host.data_in(0x20).error == IDNF

    @pytest.mark.parametrize(
        ("cylinder", "head", "sector"), [(0, 0, 0), (0, 0, 64), (3, 0, 1), (0xFFFF, 15, 63), (3, 15, 63)]
    )
    def test_chs_that_does_not_exist(self, host: AtaHost, cylinder: int, head: int, sector: int) -> None:
        host.chs(cylinder, head, sector)
        assert host.data_in(0x20).error == IDNF

    def test_chs_stops_at_the_end_of_its_translation(self, host: AtaHost) -> None:
        host.chs(2, 15, 63, 1)
        assert host.data_in(0x20).data[:4] == (3023).to_bytes(4, "little")
        host.chs(2, 15, 63, 2)
        assert host.data_in(0x20).error == IDNF

    @settings(max_examples=60, deadline=None)
    @given(cylinder=st.integers(0, 2), head=st.integers(0, 15), sector=st.integers(1, 63), count=st.integers(1, 3))
    def test_chs_equals_lba(self, cylinder: int, head: int, sector: int, count: int) -> None:
        host = AtaHost(AtaDisk(MemoryImage(content(4000))))
        lba = (cylinder * 16 + head) * 63 + sector - 1
        host.chs(cylinder, head, sector, count)
        by_chs = host.data_in(0x20)
        last = (host.get(HIGH) << 8 | host.get(MID), host.get(DEVICE) & 15, host.get(LOW))
        host.lba28(lba, count)
        by_lba = host.data_in(0x20)
        if by_lba.good and lba + count <= 3024:
            assert by_chs == by_lba
            assert last == Geometry(3, 16, 63).to_chs(lba + count - 1)
        else:
            assert by_chs.error == IDNF

    def test_initialize_device_parameters_changes_the_translation(self, host: AtaHost) -> None:
        host.put(DEVICE, 0xA0 | 3)
        host.put(COUNT, 17)
        assert host.no_data(0x91).good
        words = host.identify()
        assert words[54:57] == [4000 // (4 * 17), 4, 17]
        assert (words[1], words[3], words[6]) == (3, 16, 63)
        host.chs(5, 2, 9)
        assert host.data_in(0x20).data[:4] == ((5 * 4 + 2) * 17 + 8).to_bytes(4, "little")
        host.chs(5, 4, 9)
        assert host.data_in(0x20).error == IDNF

    @pytest.mark.parametrize(("sectors", "head"), [(0, 3), (255, 15)])
    def test_impossible_parameters(self, host: AtaHost, sectors: int, head: int) -> None:
        host.put(DEVICE, 0xA0 | head)
        host.put(COUNT, sectors)
        assert host.no_data(0x91).error == ABRT
        assert host.identify()[54:57] == [3, 16, 63]

    @settings(max_examples=80, deadline=None)
    @given(total=st.integers(1, 20_000_000))
    def test_default_geometry_never_exceeds_the_disk(self, total: int) -> None:
        geometry = Geometry.default(total)
        assert 1 <= geometry.capacity <= total
        assert geometry.cylinders <= 16383
        assert geometry.heads <= 16
        assert geometry.sectors <= 63
        assert geometry.to_lba(*geometry.to_chs(geometry.capacity - 1)) == geometry.capacity - 1
        if total > 16_514_064:
            assert geometry.cylinders == 16383


class TestOtherCommands:
    @pytest.mark.parametrize("code", [0x00, 0x08, 0x22, 0x32, 0x92, 0xA0, 0xA1, 0xB0, 0xE4, 0xE8, 0xF1, 0xF9, 0xFF])
    def test_not_supported_is_aborted(self, host: AtaHost, code: int) -> None:
        result = host.no_data(code)
        assert (result.status, result.error) == (FAILED, ABRT)

    @pytest.mark.parametrize("code", [0x40, 0x41, 0x42])
    def test_verify_reads_without_data(self, host: AtaHost, medium: Medium, code: int) -> None:
        host.lba48(100, 300) if code == 0x42 else host.lba28(100, 200)
        assert host.command(code) == READY
        assert sum(count for _, _, count in medium.calls) == (300 if code == 0x42 else 200)
        assert max(count for _, _, count in medium.calls) <= 128
        last = 399 if code == 0x42 else 299
        assert host.block() == [0, last & 0xFF, last >> 8, 0]

    def test_verify_finds_the_bad_sector(self, host: AtaHost, medium: Medium) -> None:
        medium.bad = {250}
        host.lba28(100, 200)
        assert host.no_data(0x40).error == UNC
        assert host.block() == [50, 250, 0, 0]

    @pytest.mark.parametrize("code", [0x10, 0x1F])
    def test_recalibrate(self, host: AtaHost, code: int) -> None:
        assert host.no_data(code).good

    def test_seek(self, host: AtaHost) -> None:
        host.lba28(3999)
        assert host.no_data(0x70).good
        assert host.interrupts() == 1
        host.lba28(4000)
        result = host.no_data(0x70)
        assert (result.status, result.error) == (FAILED, IDNF)
        assert host.interrupts() == 1

    @pytest.mark.parametrize("count", [3, 17, 32, 255])
    def test_set_multiple_mode_takes_powers_of_two_up_to_16(self, host: AtaHost, count: int) -> None:
        set_multiple(host, 4)
        host.put(COUNT, count)
        assert host.no_data(0xC6).error == ABRT
        assert host.identify()[59] == 0x0104

    def test_set_multiple_mode_0_disables(self, host: AtaHost) -> None:
        set_multiple(host, 4)
        set_multiple(host, 0)
        host.lba28(0)
        assert host.no_data(0xC4).error == ABRT

    @pytest.mark.parametrize("code", [0xE7, 0xEA])
    def test_flush_cache(self, host: AtaHost, medium: Medium, code: int) -> None:
        assert host.no_data(code).good
        assert medium.flushes == 1
        medium.flush_fails = True
        assert host.no_data(code).error == ABRT

    def test_read_native_max_address(self, host: AtaHost) -> None:
        host.put(DEVICE, 0xE0)
        assert host.no_data(0xF8).good
        assert host.block()[1:] == [3999 & 0xFF, 3999 >> 8, 0]
        host.put(DEVICE, 0xA0)
        assert host.no_data(0xF8).good
        assert (host.get(MID), host.get(DEVICE), host.get(LOW)) == (2, 0xAF, 63)

    def test_read_native_max_address_ext(self) -> None:
        host = AtaHost(AtaDisk(HugeMedium(1 << 40)))
        host.put(DEVICE, 0xE0)
        assert host.no_data(0x27).good
        assert host.block()[1:] == [0xFF, 0xFF, 0xFF]
        host.control(HOB)
        assert host.block()[1:] == [0xFF, 0xFF, 0x00]
        assert host.no_data(0xF8).good
        assert host.block()[1:] == [0xFF, 0xFF, 0xFF]
        assert host.get(DEVICE) == 0xEF

    @pytest.mark.parametrize(("code", "mode"), [(0xE0, 0x00), (0xE1, 0x80), (0xE2, 0x00), (0xE3, 0x80)])
    def test_power_modes(self, host: AtaHost, code: int, mode: int) -> None:
        assert host.no_data(0xE5).good
        assert host.get(COUNT) == 0xFF
        assert host.no_data(code).good
        assert host.no_data(0xE5).good
        assert host.get(COUNT) == mode
        host.lba28(0)
        assert host.data_in(0x20).good
        assert host.no_data(0xE5).good
        assert host.get(COUNT) == 0xFF

    def test_standby_flushes_and_idle_does_not(self, host: AtaHost, medium: Medium) -> None:
        host.no_data(0xE1)
        assert medium.flushes == 0
        host.no_data(0xE0)
        assert medium.flushes == 1


class TestSetFeatures:
    def feature(self, host: AtaHost, subcommand: int, count: int = 0) -> bool:
        host.put(FEATURES, subcommand)
        host.put(COUNT, count)
        return host.no_data(0xEF).good

    @pytest.mark.parametrize(("mode", "good"), [(0, 1), (1, 1), (2, 0), (8, 1), (0x0C, 1), (0x0D, 0), (0x22, 0)])
    def test_transfer_modes_of_a_pio_channel(self, host: AtaHost, mode: int, good: int) -> None:
        assert self.feature(host, 3, mode) == bool(good)

    def test_transfer_modes_of_a_sata_link(self) -> None:
        host = AtaHost(AtaDisk(MemoryImage(512), transport=Transport.SATA))
        assert self.feature(host, 3, 0x45)
        assert host.identify()[88] == 0x207F
        assert self.feature(host, 3, 0x21)
        words = host.identify()
        assert (words[63], words[88]) == (0x0207, 0x007F)
        assert not self.feature(host, 3, 0x47)
        assert not self.feature(host, 3, 0x23)

    @pytest.mark.parametrize("subcommand", [0x00, 0x01, 0x05, 0x10, 0xFF])
    def test_not_supported(self, host: AtaHost, subcommand: int) -> None:
        assert not self.feature(host, subcommand)

    def test_settings_survive_a_software_reset_unless_told_otherwise(self, host: AtaHost) -> None:
        set_multiple(host, 8)
        host.software_reset()
        assert host.identify()[59] == 0x0108
        assert self.feature(host, 0xCC)
        host.software_reset()
        assert host.identify()[59] == 0
        set_multiple(host, 8)
        assert self.feature(host, 0xCC)
        assert self.feature(host, 0x66)
        host.software_reset()
        assert host.identify()[59] == 0x0108


class TestDriveLevel:
    """What an AHCI port sees: registers, phases and bytes, no ports."""

    def drive(self, medium: Medium) -> AtaDisk:
        return AtaDisk(medium, transport=Transport.SATA)

    def fill(self, drive: AtaDisk, lba: int, count: int, device: int = 0x40, features: int = 0) -> None:
        registers = drive.state.registers
        registers.lba48 = lba
        registers.current[DEVICE] = device
        registers.current[COUNT], registers.previous[COUNT] = count & 0xFF, count >> 8
        registers.current[FEATURES], registers.previous[FEATURES] = features & 0xFF, features >> 8

    def read(self, drive: AtaDisk) -> bytes:
        data = bytearray()
        while drive.state.phase == DATA_IN:
            data += drive.read_data(3000)
        return bytes(data)

    @pytest.mark.parametrize(("code", "device"), [(0x25, 0x40), (0xC8, 0xE0), (0xC9, 0xE0)])
    def test_read_dma(self, medium: Medium, code: int, device: int) -> None:
        drive = self.drive(medium)
        self.fill(drive, 50, 200, device)
        drive.execute(code)
        assert drive.state.dma
        assert not drive.state.interrupt, "DMA interrupts at the end only"
        assert self.read(drive) == content(250)[50 * 512 :]
        assert drive.state.interrupt
        assert drive.state.registers.status == READY
        assert [count for _, _, count in medium.calls] == [128, 72]

    @pytest.mark.parametrize("code", [0x35, 0x3D, 0xCA, 0xCB])
    def test_write_dma(self, medium: Medium, code: int) -> None:
        drive = self.drive(medium)
        self.fill(drive, 7, 130, 0xE0 if code >= 0xC0 else 0x40)
        drive.execute(code)
        data = content(130)[::-1]
        sent = 0
        while drive.state.phase == DATA_OUT:
            assert not drive.state.interrupt
            sent += drive.write_data(data[sent : sent + 10_000])
        assert sent == len(data)
        assert medium.data[7 * 512 : 137 * 512] == data
        assert drive.state.interrupt
        assert medium.flushes == (code == 0x3D)

    def test_queued_commands_count_in_features_and_keep_the_tag(self, medium: Medium) -> None:
        drive = self.drive(medium)
        self.fill(drive, 9, 5 << 3, features=300)
        drive.execute(0x60)
        assert self.read(drive) == content(309)[9 * 512 :]
        assert drive.state.registers.current[COUNT] == 5 << 3
        assert drive.state.registers.lba48 == 9

    @pytest.mark.parametrize(("device", "flushes"), [(0x40, 0), (0xC0, 1)])
    def test_queued_write_with_fua(self, medium: Medium, device: int, flushes: int) -> None:
        drive = self.drive(medium)
        self.fill(drive, 9, 0, device, features=1)
        drive.execute(0x61)
        assert drive.write_data(b"q" * 600) == 512
        assert drive.state.phase == IDLE
        assert medium.data[9 * 512 : 10 * 512] == b"q" * 512
        assert medium.flushes == flushes

    def test_queued_read_error(self, medium: Medium) -> None:
        medium.bad = {20}
        drive = self.drive(medium)
        self.fill(drive, 10, 7 << 3, features=50)
        drive.execute(0x60)
        assert drive.state.phase == IDLE
        assert (drive.state.registers.status, drive.state.registers.error) == (FAILED, UNC)
        assert drive.state.registers.lba48 == 20
        assert drive.state.registers.current[COUNT] == 7 << 3

    def log(self, drive: AtaDisk, number: int, pages: int = 1) -> bytes:
        self.fill(drive, number, pages)
        drive.execute(0x2F)
        return self.read(drive)

    def test_queued_error_log(self, medium: Medium) -> None:
        drive = self.drive(medium)
        assert self.log(drive, 0x10)[0] == 0x80, "no queued command has failed"
        medium.bad = {20}
        self.fill(drive, 10, 7 << 3, features=50)
        drive.execute(0x60)
        data = self.log(drive, 0x10)
        assert data[:4] == bytes((7, 0, FAILED, UNC))
        assert data[4:14] == bytes((20, 0, 0, 0x40, 0, 0, 0, 0, 7 << 3, 0))
        assert sum(data) % 256 == 0

    def test_log_directory(self, medium: Medium) -> None:
        drive = self.drive(medium)
        data = self.log(drive, 0)
        assert data[:2] == b"\1\0"
        assert data[0x20:0x22] == b"\1\0"
        assert sum(data) == 2

    @pytest.mark.parametrize(("number", "pages"), [(0x11, 1), (0x10, 2), (0x10, 0), (0x110, 1)])
    def test_other_logs_and_pages(self, medium: Medium, number: int, pages: int) -> None:
        drive = self.drive(medium)
        assert self.log(drive, number, pages) == b""
        assert drive.state.registers.error == ABRT

    def test_no_logs_on_a_parallel_cable(self, host: AtaHost) -> None:
        host.lba48(0x10, 1)
        assert host.no_data(0x2F).error == ABRT

    def test_pio_commands_work_too(self, medium: Medium) -> None:
        drive = self.drive(medium)
        drive.execute(0xEC)
        assert (drive.state.phase, drive.state.dma, drive.state.interrupt) == (DATA_IN, False, True)
        assert len(self.read(drive)) == 512

    def test_no_phase_no_data(self, medium: Medium) -> None:
        drive = self.drive(medium)
        assert drive.read_data(100) == b""
        assert drive.write_data(b"x") == 0


Commands = st.lists(
    st.tuples(
        st.sampled_from([*READS28, *READS48, *WRITES28, *WRITES48, 0x40, 0x42, 0xC6, 0x91]),
        st.integers(0, 330),
        st.integers(0, 40),
        st.integers(0, 255),
        st.sampled_from(["lba", "chs"]),
    ),
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(commands=Commands, size=st.integers(1, 320))
def test_random_commands_equal_a_plain_array(commands: list[tuple[int, int, int, int, str]], size: int) -> None:
    """Any mix of commands against the simplest model of a disk: an array, a translation, a block size."""
    medium = MemoryImage(content(size))
    host = AtaHost(AtaDisk(medium))
    reference = bytearray(content(size))
    geometry = Geometry.default(size)
    multiple = 0
    for code, position, count, value, form in commands:
        if code == 0xC6:
            host.put(COUNT, count)
            valid = count in (0, 1, 2, 4, 8, 16)
            assert host.no_data(code).good == valid
            multiple = count if valid else multiple
            continue
        if code == 0x91:
            heads = value % 16 + 1
            host.put(COUNT, count)
            host.put(DEVICE, 0xA0 | heads - 1)
            valid = 0 < count * heads <= size
            assert host.no_data(code).good == valid
            if valid:
                geometry = Geometry(min(65_535, size // (heads * count)), heads, count)
            continue
        ext = code in READS48 + WRITES48 + (0x42,)
        number = count or (65_536 if ext else 256)
        limit = size
        if ext:
            host.lba48(position, count)
        elif form == "lba":
            host.lba28(position, count)
        else:
            cylinder, head, sector = geometry.to_chs(position)
            host.chs(cylinder, head, sector, count)
            limit = geometry.capacity
        needs_multiple = code in (0xC4, 0xC5, 0x29, 0x39, 0xCE)
        step = multiple if needs_multiple else 1
        if needs_multiple and not multiple:
            assert host.no_data(code).error == ABRT
        elif position + number > limit:
            assert host.no_data(code).error == IDNF
        elif code in WRITES28 + WRITES48:
            data = bytes((value,)) * 512 * number
            assert host.data_out(code, data, step).good
            reference[position * 512 : (position + number) * 512] = data
        elif code in READS28 + READS48:
            result = host.data_in(code, step)
            assert result.good
            assert result.data[: number * 512] == reference[position * 512 : (position + number) * 512]
        else:
            assert host.no_data(code).good
    assert medium.data == reference
