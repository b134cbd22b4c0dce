"""The lines between machine and viewer: what is written is read, and nothing else is."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_support import HELLO, snapshot_at
from portvisor.live.protocol import (
    MAX_ANSWER,
    MAX_DEVICES,
    MAX_PORTS,
    MAX_REQUEST,
    Access,
    Detail,
    Ended,
    LineReader,
    Message,
    PortRow,
    ProtocolError,
    RegisterRow,
    Request,
    Snapshot,
    Totals,
    decode,
    decode_request,
    encode,
)

DETAIL = Detail(0x71, [RegisterRow("Seconds", False, 7)], [Access(6, 0x26, 1, False, True, "Seconds")])


@pytest.mark.parametrize("message", [HELLO, snapshot_at(3), DETAIL, Ended("powered off")])
def test_messages_come_out_as_they_went_in(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == message


@pytest.mark.parametrize("watch", [None, 0, 0xFFFF])
def test_requests_come_out_as_they_went_in(watch: int | None) -> None:
    assert decode_request(encode(Request(watch))[:-1]) == Request(watch)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"7", b"{", b"\xff\xfe", b"{}", b'{"want":"all"}',
        b'{"want":"snapshot","watch":65536}',
        b'{"want":"snapshot","watch":-1}', b'{"want":"snapshot","watch":true}',
        b'{"want":"snapshot","watch":"3f8"}', b'{"want":"snapshot","watch":1.5}', b"[" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(line)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"{}", b"{", b"\xff", b'{"kind":"hello"}', b'{"kind":7}', b'{"kind":"song"}',
        b'{"kind":"hello","portvisor":1,"who":[1]}', b'{"kind":"hello","portvisor":1,"who":7}',
        b'{"kind":"hello","portvisor":1,"who":[1,2,3,4,5]}', b'{"kind":"hello","portvisor":true,"who":[]}',
        b'{"kind":"end"}', b'{"kind":"end","why":7}', b'{"kind":"snapshot"}', b'{"kind":"detail","port":1}',
        b'{"kind":"snapshot","host_ns":1e400}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


def test_another_version_is_named() -> None:
    line = encode(HELLO).replace(b'"portvisor":1', b'"portvisor":2')
    with pytest.raises(ProtocolError, match="speaks version 2 of the protocol, this portvisor version 1"):
        decode(line)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host_ns", -1), ("host_ns", 1 << 64), ("host_ns", "1"), ("resets", None), ("ports_used", 1.0),
        ("devices", {}), ("devices", [["uart0"]]), ("devices", [["uart0", [1, 2, 3]]]),
        ("devices", [["uart0", [1, 2, 3, -4]]]), ("devices", [[7, [1, 2, 3, 4]]]),
        ("devices", [["x", [0, 0, 0, 0]]] * (MAX_DEVICES + 1)),
        ("ports", [[65536, "", "", "", [0, 0, 0, 0]]]), ("ports", [[1, "", "", [0, 0, 0, 0]]]),
        ("ports", [[1, "", "", "", [0, 0, 0, 0]]] * (MAX_PORTS + 1)),
        ("interrupts", []), ("interrupts", {"IRQ0": "1"}), ("interrupts", {f"IRQ{n}": 1 for n in range(65)}),
    ],
)  # fmt: skip
def test_a_snapshot_with_a_wrong_value_is_refused(name: str, value: object) -> None:
    values = json.loads(encode(snapshot_at(1)))
    values[name] = value
    with pytest.raises(ProtocolError):
        decode(json.dumps(values).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"port": 1 << 16}, {"registers": [["A", 1, 1]]}, {"registers": 7}, {"last": [[1]]},
        {"last": [[1, 1 << 32, 1, True, False, ""]]}, {"last": [[1, 1, 9, True, False, ""]]},
        {"last": [[1, 1, 1, True, False, ""]] * 65},
    ],
)  # fmt: skip
def test_a_detail_with_a_wrong_value_is_refused(change: dict[str, object]) -> None:
    values = {**json.loads(encode(DETAIL)), **change}
    with pytest.raises(ProtocolError):
        decode(json.dumps(values).encode())


def test_text_from_the_other_side_cannot_control_the_terminal() -> None:
    message = decode(b'{"kind":"end","why":"\\u001b[2Jgone\\u0007\\n\\ud800"}')
    assert message == Ended("?[2Jgone???")


def test_the_greatest_snapshot_keeps_to_the_limit() -> None:
    big = Totals(*[(1 << 64) - 1] * 4)
    name = "\U0001f600" * 500
    rows = [PortRow(port, name, name, name, big) for port in range(2000)]
    devices = {f"{number:04}{name}": big for number in range(2000)}
    top = (1 << 64) - 1
    line = encode(Snapshot(top, top, top, 1 << 16, devices, rows, {f"IRQ{n}": top for n in range(16)}))
    assert len(line) <= MAX_ANSWER
    message = decode(line)
    assert isinstance(message, Snapshot)
    assert (len(message.ports), len(message.devices)) == (MAX_PORTS, MAX_DEVICES)


def test_lines_come_whole_whatever_the_pieces() -> None:
    reader = LineReader(10)
    assert list(reader.feed(b"ab")) == []
    assert list(reader.feed(b"c\nde\n\nf")) == [b"abc", b"de", b""]
    assert list(reader.feed(b"\n")) == [b"f"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=8), st.integers(1, 7))
def test_any_cut_gives_the_same_lines(lines: list[bytes], step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader, found = LineReader(20), []
    for start in range(0, len(stream), step):
        found += list(reader.feed(stream[start : start + step]))
    assert found == lines


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 11 + b"\n"], [b"x" * 9, b"xx\n"]])
def test_a_line_that_is_too_long_is_refused_before_its_end(pieces: list[bytes]) -> None:
    reader = LineReader(10)
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        for piece in pieces:
            list(reader.feed(piece))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = ("kind", "portvisor", "who", "why", "port", "registers", "last", "devices", "ports", "interrupts", "host_ns")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(("hello", "snapshot", "detail", "end")), st.dictionaries(st.sampled_from(KEYS), json_values))
def test_no_message_raises_anything_else(kind: str, values: dict[str, object]) -> None:
    for line in (
        json.dumps({**values, "kind": kind}),
        json.dumps({**json.loads(encode(snapshot_at(1))), **values}),
    ):
        with contextlib.suppress(ProtocolError):
            decode(line.encode())
        with contextlib.suppress(ProtocolError):
            decode_request(line.encode()[:MAX_REQUEST])
