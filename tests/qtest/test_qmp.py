"""QMP without sockets: negotiation, commands, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.qtest.qmp import OBJECT_LIMIT, ObjectSplitter, Qmp, event


class Machine:
    """Controls that note what is asked of them."""

    status = "running"
    vm_name = "test"
    uuid = "00000000-0000-0000-0000-000000000001"
    has_pic = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def reset(self, reason: str, guest: bool) -> None:
        self.calls.append(f"reset {reason}")

    def powerdown(self) -> None:
        self.calls.append("powerdown")

    def change_medium(self, name: str, path: str | None, *, read_only: bool) -> None:
        self.calls.append(f"medium {name} {path} {read_only}")

    def stop(self) -> None:
        self.calls.append("stop")

    def resume(self) -> None:
        self.calls.append("cont")

    def quit(self, reason: str) -> None:
        self.calls.append("quit")


def ask(qmp: Qmp, text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in qmp.feed(text.encode())]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def qmp(machine: Machine) -> Qmp:
    qmp = Qmp(machine)
    assert ask(qmp, '{"execute": "qmp_capabilities"}') == [{"return": {}}]
    return qmp


def test_greeting_names_a_version() -> None:
    assert json.loads(Qmp.greeting())["QMP"]["version"]["qemu"] == {"major": 7, "minor": 2, "micro": 0}


def test_negotiation_comes_first(machine: Machine) -> None:
    (reply,) = ask(Qmp(machine), '{"execute": "query-status"}')
    assert reply["error"]["class"] == "CommandNotFound"


def test_negotiation_happens_once(qmp: Qmp) -> None:
    (reply,) = ask(qmp, '{"execute": "qmp_capabilities"}')
    assert reply["error"]["class"] == "CommandNotFound"


def test_query_status(qmp: Qmp) -> None:
    assert ask(qmp, '{"execute": "query-status"}')[0]["return"]["status"] == "running"


def test_query_machines_names_ours(qmp: Qmp) -> None:
    names = {one["name"] for one in ask(qmp, '{"execute": "query-machines"}')[0]["return"]}
    assert names == {"none", "pc", "q35"}


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("system_reset", "reset host-qmp-system-reset"),
        ("system_powerdown", "powerdown"),
        ("stop", "stop"),
        ("cont", "cont"),
        ("quit", "quit"),
    ],
)
def test_commands_reach_the_machine(qmp: Qmp, machine: Machine, command: str, call: str) -> None:
    assert ask(qmp, json.dumps({"execute": command})) == [{"return": {}}]
    assert machine.calls == [call]


def test_the_id_comes_back(qmp: Qmp) -> None:
    assert ask(qmp, '{"execute": "stop", "id": [1, "x"]}') == [{"return": {}, "id": [1, "x"]}]
    assert ask(qmp, '{"execute": "nothing", "id": 5}')[0]["id"] == 5


@pytest.mark.parametrize(
    "text",
    [
        "rubbish ",
        "}",
        "{]",
        "[1, 2]",
        '"text" ',
        '{"execute": 5}',
        '{"arguments": {}}',
        '{"execute": "stop", "arguments": []}',
        '{"execute": "stop", "arguments": {"now": true}}',
        '{"execute": "stop", "surprise": 1}',
        '{"execute": "qom-list", "arguments": {"path": 7}}',
        "{'execute': 'stop'}",
    ],
)
def test_bad_input_gets_an_error(qmp: Qmp, machine: Machine, text: str) -> None:
    replies = ask(qmp, text)
    assert replies
    assert all("error" in reply for reply in replies)
    assert machine.calls == []
    assert ask(qmp, '{"execute": "stop"}') == [{"return": {}}]


def test_objects_may_come_in_pieces_or_together() -> None:
    splitter = ObjectSplitter()
    assert splitter.feed(b'{"a": "}\\"{"') == []
    assert splitter.feed(b"}{} {\n") == [b'{"a": "}\\"{"}', b"{}"]


def test_an_endless_object_is_dropped() -> None:
    splitter = ObjectSplitter()
    pieces = splitter.feed(b'{"a": "' + b"x" * OBJECT_LIMIT)
    assert pieces == [b"?"]


def test_events_have_the_time() -> None:
    message = event("RESET", {"guest": True})
    assert message["event"] == "RESET"
    assert set(message["timestamp"]) == {"seconds", "microseconds"}


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_survived(data: bytes) -> None:
    qmp = Qmp(Machine())
    for _ in (*qmp.feed(data), *qmp.feed(b'"\n"')):
        pass
