"""What a BMC holds about its board: sensor data records and FRU information.

Sources: IPMI 2.0 revision 1.1, 43.1 (full sensor record); IPMI Platform Management FRU Information Storage
Definition 1.0, chapters 8 (common header) and 12 (product area).

Not modelled: sensors of other kinds than unsigned linear ones, hysteresis, events, thresholds that can be set.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

BMC_ADDRESS = 0x20
SDR_VERSION, FULL_SENSOR = 0x51, 0x01
THRESHOLD_EVENTS = 0x01
"""Event/reading type of a sensor with thresholds (table 42-1)."""
LOWER_CRITICAL, UPPER_CRITICAL = 1 << 1, 1 << 4
"""Bits of a threshold mask: LNC, LC, LNR, UNC, UC, UNR."""
CRITICAL_COMPARED = 1 << 13
"""In either reading mask: the comparison with the critical threshold is returned."""
SCANNING_FROM_POWER_UP = 0x01
AUTO_RE_ARM, READABLE_THRESHOLDS, NO_EVENTS = 0x40, 0x04, 0x03
NOMINAL_SPECIFIED = 0x01
LATIN1 = 0xC0
"""Type/length byte: 8-bit ASCII, length in the low bits."""
LABEL_LIMIT, FRU_FIELD_LIMIT = 16, 63
MULTIPLIERS = range(-512, 512)
EXPONENTS = range(-8, 8)

ENGLISH, END_OF_FIELDS = 25, 0xC1


@dataclass(frozen=True, slots=True)
class Sensor:
    """An analog sensor with a full record: value = raw * multiplier * 10^exponent.

    Raises:
        ValueError: a value does not fit the record.
    """

    number: int
    name: str
    kind: int
    """Sensor type code (table 42-3): 01 temperature, 02 voltage, 04 fan."""
    unit: int
    """Base unit (table 43-15): 1 degrees C, 4 volts, 18 RPM."""
    raw: int
    multiplier: int = 1
    exponent: int = 0
    entity: int = 7
    """Entity ID (table 43-13): 3 processor, 7 system board, 29 fan, 10 power supply."""
    upper_critical: int | None = None
    lower_critical: int | None = None
    """Raw values; None for a sensor without that threshold."""

    def __post_init__(self) -> None:
        if not (1 < len(self.name) <= LABEL_LIMIT and self.name.isascii() and self.name.isprintable()):
            raise ValueError(f"sensor name {self.name!r}: 2 to {LABEL_LIMIT} printable ASCII characters")
        if self.multiplier not in MULTIPLIERS or self.exponent not in EXPONENTS:
            raise ValueError(f"sensor {self.name}: multiplier is -512 to 511, exponent -8 to 7")

    @property
    def thresholds(self) -> int:
        """Mask of the thresholds there are."""
        lower = LOWER_CRITICAL if self.lower_critical is not None else 0
        return lower | (UPPER_CRITICAL if self.upper_critical is not None else 0)

    @property
    def crossed(self) -> int:
        """Mask of the thresholds that the reading is at or beyond."""
        if self.upper_critical is not None and self.raw >= self.upper_critical:
            return UPPER_CRITICAL
        if self.lower_critical is not None and self.raw <= self.lower_critical:
            return LOWER_CRITICAL
        return 0


SENSORS = (
    Sensor(1, "Inlet Temp", 1, 1, 23, upper_critical=47, lower_critical=3),
    Sensor(2, "CPU1 Temp", 1, 1, 41, entity=3, upper_critical=90, lower_critical=3),
    Sensor(3, "Fan1", 4, 18, 56, multiplier=100, entity=29, lower_critical=6),
    Sensor(4, "Voltage 1", 2, 4, 115, multiplier=2, entity=10, upper_critical=132),
)


def sensor_record(record_id: int, sensor: Sensor) -> bytes:
    """Full sensor record (43.1)."""
    key = struct.pack("<BBB", BMC_ADDRESS, 0, sensor.number)
    capabilities = AUTO_RE_ARM | READABLE_THRESHOLDS | NO_EVENTS
    head = struct.pack(
        "<BBBBBB", sensor.entity, 1, SCANNING_FROM_POWER_UP, capabilities, sensor.kind, THRESHOLD_EVENTS
    )
    lower = CRITICAL_COMPARED if sensor.lower_critical is not None else 0
    upper = CRITICAL_COMPARED if sensor.upper_critical is not None else 0
    masks = struct.pack("<HHBB", lower, upper, sensor.thresholds, 0)
    units = struct.pack("<BBBB", 0, sensor.unit, 0, 0)
    ranges = struct.pack("<BBBBBB", NOMINAL_SPECIFIED, sensor.raw, 0, 0, 0xFF, 0)
    thresholds = struct.pack("<BBBBBB", 0, sensor.upper_critical or 0, 0, 0, sensor.lower_critical or 0, 0)
    label = sensor.name.encode("ascii")
    tail = struct.pack("<BBBBBB", 0, 0, 0, 0, 0, LATIN1 | len(label)) + label
    body = key + head + masks + units + _factors(sensor) + ranges + thresholds + tail
    return struct.pack("<HBBB", record_id, SDR_VERSION, FULL_SENSOR, len(body)) + body


def _factors(sensor: Sensor) -> bytes:
    """Bytes 25-30: M, B and their exponents; tolerance and accuracy are 0."""
    m_low, m_high = sensor.multiplier & 0xFF, sensor.multiplier >> 8 & 3
    return bytes((m_low, m_high << 6, 0, 0, 0, (sensor.exponent & 0xF) << 4))


def _area(content: bytes) -> bytes:
    """A FRU area: its length in units of 8 bytes at 1, padding, zero checksum."""
    size = -(-(len(content) + 1) // 8) * 8
    area = bytearray(content.ljust(size, b"\0"))
    area[1] = size // 8
    area[-1] = -sum(area) & 0xFF
    return bytes(area)


def _field(text: str) -> bytes:
    """A field of a FRU area. A single character would read as the end of the fields."""
    if len(text) == 1 or len(text) > FRU_FIELD_LIMIT:
        raise ValueError(f"FRU field {text!r}: none or 2 to {FRU_FIELD_LIMIT} characters")
    return bytes([LATIN1 | len(text)]) + text.encode("latin-1")


def fru_information(manufacturer: str, product: str, version: str, serial: str) -> bytes:
    """FRU information with a product area.

    Raises:
        ValueError: a text is too long, of one character, or not Latin-1.
    """
    part_number = asset_tag = file_id = ""
    fields = (manufacturer, product, part_number, version, serial, asset_tag, file_id)
    content = bytes((1, 0, ENGLISH)) + b"".join(_field(one) for one in fields) + bytes([END_OF_FIELDS])
    product_area_at = 1
    header = bytearray((1, 0, 0, 0, product_area_at, 0, 0, 0))
    header[7] = -sum(header) & 0xFF
    return bytes(header) + _area(content)
