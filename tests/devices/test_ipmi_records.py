"""IPMI 2.0, 43.1, and the FRU storage definition, taken apart by the byte numbers of their tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from portvisor.devices.ipmi_records import SENSORS, Sensor, fru_information, sensor_record


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


@dataclass
class Parsed:
    """A full sensor record; bytes are numbered from 1 as in table 43-1."""

    data: bytes

    def __getitem__(self, number: int) -> int:
        return self.data[number - 1]

    def word(self, number: int) -> int:
        return self[number] | self[number + 1] << 8

    def value(self, raw: int) -> float:
        """36.3: y = (M x + B 10^K1) 10^K2."""
        multiplier = signed(self[25] | (self[26] & 0xC0) << 2, 10)
        offset = signed(self[27] | (self[28] & 0xC0) << 2, 10)
        result_exponent, offset_exponent = signed(self[30] >> 4, 4), signed(self[30] & 0xF, 4)
        return float((multiplier * raw + offset * 10**offset_exponent) * 10**result_exponent)


def parsed(**changes: object) -> Parsed:
    options: dict[str, object] = {"number": 7, "name": "Inlet Temp", "kind": 1, "unit": 1, "raw": 23}
    return Parsed(sensor_record(0x1234, Sensor(**(options | changes))))  # type: ignore[arg-type]


def test_header_and_key() -> None:
    """Bytes 1-8: record ID, version, type, length of the rest, owner, LUN and channel, number."""
    record = parsed()
    assert record.word(1) == 0x1234
    assert (record[3], record[4], record[5]) == (0x51, 0x01, len(record.data) - 5)
    assert (record[6], record[7], record[8]) == (0x20, 0, 7)


def test_entity_and_types() -> None:
    """Bytes 9, 10, 13, 14: entity and instance, sensor type, threshold event type."""
    record = parsed(entity=29, kind=4)
    assert (record[9], record[10], record[13], record[14]) == (29, 1, 4, 1)


def test_initialization_and_capabilities() -> None:
    """Bytes 11, 12: scanning comes up by itself; auto re-arm, no hysteresis, readable thresholds, no events."""
    record = parsed()
    assert record[11] == 0x01
    assert record[12] >> 6 == 0b01
    assert (record[12] >> 4 & 3, record[12] >> 2 & 3, record[12] & 3) == (0b00, 0b01, 0b11)


@pytest.mark.parametrize(
    ("changes", "lower", "upper", "readable"),
    [
        ({}, 0, 0, 0),
        ({"lower_critical": 3}, 1 << 13, 0, 0b000010),
        ({"upper_critical": 47}, 0, 1 << 13, 0b010000),
        ({"lower_critical": 3, "upper_critical": 47}, 1 << 13, 1 << 13, 0b010010),
    ],
)
def test_masks(changes: dict[str, int], lower: int, upper: int, readable: int) -> None:
    """Bytes 15-20: no events, which comparisons are returned, readable and settable thresholds."""
    record = parsed(**changes)
    assert (record.word(15), record.word(17), record[19], record[20]) == (lower, upper, readable, 0)


def test_units() -> None:
    """Bytes 21-24: unsigned, no rate or modifier; base unit; no modifier unit; linear."""
    record = parsed(unit=18)
    assert (record[21], record[22], record[23], record[24]) == (0, 18, 0, 0)


@pytest.mark.parametrize(
    ("multiplier", "exponent", "expected"),
    [(1, 0, 23), (100, 0, 2300), (2, -1, 4.6), (511, 0, 11753), (-512, 0, -11776), (5, 7, 1.15e9), (1, -8, 23e-8)],
)
def test_factors(multiplier: int, exponent: int, expected: float) -> None:
    """Bytes 25-30: M of ten bits, B 0, R exponent in 7:4, B exponent in 3:0."""
    record = parsed(multiplier=multiplier, exponent=exponent)
    assert record.value(23) == pytest.approx(expected)
    assert (record[26] & 0x3F, record[27], record[28], record[29], record[30] & 0xF) == (0, 0, 0, 0, 0)


def test_nominal_and_ranges() -> None:
    """Bytes 31-36: only the nominal reading is specified; sensor maximum and minimum."""
    record = parsed()
    assert (record[31], record[32], record[35], record[36]) == (0x01, 23, 0xFF, 0)


def test_thresholds_in_their_order() -> None:
    """Bytes 37-42: UNR, UC, UNC, LNR, LC, LNC; 43-44 no hysteresis; 45-46 reserved."""
    record = parsed(lower_critical=3, upper_critical=47)
    assert [record[number] for number in range(37, 47)] == [0, 47, 0, 0, 3, 0, 0, 0, 0, 0]


def test_id_string() -> None:
    """Bytes 48 and on: 8-bit ASCII and its length; at most 16 bytes."""
    record = parsed(name="A name of 16 ch.")
    assert record[48] == 0xC0 | 16
    assert record.data[48:] == b"A name of 16 ch."


@pytest.mark.parametrize("changes", [{"name": "x"}, {"name": "x" * 17}, {"name": "gr\u00f6\u00dfe"}, {"multiplier": 512}, {"exponent": -9}])  # fmt: skip  # noqa: E501
def test_sensors_that_no_record_can_hold(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"sensor .*"):
        parsed(**changes)


def test_what_software_reads_of_the_board() -> None:
    """Name, value and upper critical threshold of the default sensors, through the conversion."""
    seen = []
    for number, sensor in enumerate(SENSORS, start=1):
        record = Parsed(sensor_record(number, sensor))
        seen.append((record.data[48:].decode(), record.value(record[32]), record.value(record[38])))
    assert seen == [
        ("Inlet Temp", 23.0, 47.0),
        ("CPU1 Temp", 41.0, 90.0),
        ("Fan1", 5600.0, 0.0),
        ("Voltage 1", 230.0, 264.0),
    ]


# --- FRU -----------------------------------------------------------------------------------------------------


def product_fields(area: bytes) -> list[str]:
    """Texts of a product area, up to the end mark."""
    fields, place = [], 3
    while area[place] != 0xC1:
        length = area[place] & 0x3F
        assert area[place] >> 6 == 3
        fields.append(area[place + 1 : place + 1 + length].decode("latin-1"))
        place += 1 + length
    return fields


def test_fru_common_header() -> None:
    """Chapter 8: version 1, only a product area, zero checksum."""
    data = fru_information("maker", "product", "1.0", "serial")
    assert data[:7] == bytes((1, 0, 0, 0, 1, 0, 0))
    assert sum(data[:8]) % 256 == 0


@pytest.mark.parametrize("name", ["product", "p" * 12, "p" * 63])
def test_fru_product_area(name: str) -> None:
    """Chapter 12: length in units of 8, English, seven fields in order, end mark, zero checksum."""
    area = fru_information("maker", name, "1.0", "serial")[8:]
    assert (area[0], area[1] * 8, area[2]) == (1, len(area), 25)
    assert sum(area) % 256 == 0
    assert product_fields(area) == ["maker", name, "", "1.0", "serial", "", ""]


@pytest.mark.parametrize("text", ["x", "x" * 64, "\u20ac\u20ac"])
def test_fru_texts_that_do_not_fit(text: str) -> None:
    """8.1: one character would read as the end mark C1."""
    with pytest.raises(ValueError, match=r".+"):
        fru_information("maker", text, "1.0", "serial")
