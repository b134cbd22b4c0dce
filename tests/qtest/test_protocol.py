"""The line protocol without sockets: parsing, replies, limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.qtest.protocol import ACCESSES, LINE_LIMIT, TRANSFER_LIMIT, Qtest, QtestError, parse_number


class Recorder:
    """A target with 64 KiB of memory at 0 that notes what is done to it."""

    def __init__(self) -> None:
        self.memory = bytearray(0x10000)
        self.now = 0
        self.calls: list[tuple[object, ...]] = []
        self.ports: dict[int, int] = {}

    def port_read(self, port: int, size: int) -> int:
        return self.ports.get(port, (1 << 8 * size) - 1)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.calls.append(("out", port, size, value))

    def memory_read(self, address: int, length: int) -> bytes:
        return bytes(self.memory[address : address + length]).ljust(length, b"\xff")

    def memory_write(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def clock_now(self) -> int:
        return self.now

    def clock_step(self) -> None:
        self.now += 7

    def clock_set(self, target: int) -> None:
        self.now = max(self.now, target)

    def intercept(self, path: str, outputs: bool) -> None:
        if path != "ioapic":
            raise QtestError("Unknown device")

    def set_irq(self, path: str, name: str, number: int, level: int) -> None:
        self.calls.append(("irq", path, name, number, level))


def run(qtest: Qtest, data: bytes) -> bytes:
    return b"".join(qtest.feed(data))


@pytest.fixture
def target() -> Recorder:
    return Recorder()


@pytest.fixture
def qtest(target: Recorder) -> Qtest:
    return Qtest(target)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("endianness", "OK little"),
        ("inb 0x21", "OK 0x00ff"),
        ("inw 0x21", "OK 0xffff"),
        ("inl 33", "OK 0xffffffff"),
        ("outb 041 0x1f", "OK"),
        ("readb 0x10", "OK 0x0000000000000000"),
        ("read 0x0 0x2", "OK 0x0000"),
        ("b64read 0 3", "OK AAAA"),
        ("clock_step", "OK 7"),
        ("clock_step 100", "OK 100"),
        ("clock_set 12", "OK 12"),
        ("irq_intercept_in ioapic", "OK"),
        ("set_irq_in /path unnamed-gpio-in 3 1", "OK"),
    ],
)
def test_reply_of_each_command(qtest: Qtest, line: str, reply: str) -> None:
    assert qtest.execute(line) == [reply]


def test_numbers_are_c_literals(qtest: Qtest, target: Recorder) -> None:
    run(qtest, b"outb 0x3f8 65\noutb 01770 0x41\noutb 1016 0101\n")
    assert target.calls == [("out", 0x3F8, 1, 65)] * 3


@pytest.mark.parametrize("width", ["b", "w", "l", "q"])
def test_memory_is_little_endian(qtest: Qtest, target: Recorder, width: str) -> None:
    size = 1 << "bwlq".index(width)
    value = 0x8877665544332211 & (1 << 8 * size) - 1
    assert qtest.execute(f"write{width} 0x100 {value:#x}") == ["OK"]
    assert target.memory[0x100 : 0x100 + size] == value.to_bytes(size, "little")
    assert qtest.execute(f"read{width} 0x100") == [f"OK 0x{value:016x}"]


def test_block_writes(qtest: Qtest, target: Recorder) -> None:
    assert qtest.execute("write 0x10 0x4 0xdeadbeef") == ["OK"]
    assert qtest.execute("memset 0x14 2 0x5a") == ["OK"]
    assert qtest.execute("b64write 0x16 2 AQI=") == ["OK"]
    assert target.memory[0x10:0x18] == b"\xde\xad\xbe\xef\x5a\x5a\x01\x02"


def test_interrupts_come_before_the_reply_of_their_command(target: Recorder) -> None:
    qtest = Qtest(target)
    qtest.irq_changed(4, 1)
    qtest.irq_changed(4, 0)
    assert run(qtest, b"inb 0x60\ninb 0x60\n") == b"IRQ raise 4\nIRQ lower 4\nOK 0x00ff\nOK 0x00ff\n"


def test_half_a_line_waits_for_its_rest(qtest: Qtest) -> None:
    assert run(qtest, b"inb 0x") == b""
    assert run(qtest, b"21\nendian") == b"OK 0x00ff\n"
    assert run(qtest, b"ness\n") == b"OK little\n"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "frobnicate",
        "inb",
        "inb 0x10000",
        "inb -1",
        "inb 0x",
        "inb 09",
        "inb 1e3",
        "inb 0x21 0x22",
        "outb 0x21 0x100",
        "outl 0x21 0x100000000",
        "outb ٢١ 1",
        "readq 0xfffffffffffffff9",
        "read 0 1073741824",
        "write 0 4 deadbeef",
        "write 0 4 0xzz",
        "write 0 1073741824 0x00",
        "b64write 0 4 @@@@",
        "memset 0 0xffffffffffffffff 0",
        "memset 0 1 256",
        "clock_step 9223372036854775808",
        "clock_step -5",
        "irq_intercept_in nowhere",
        "INB 0x21",
    ],
)
def test_bad_commands_get_an_error_reply(qtest: Qtest, line: str) -> None:
    (reply,) = qtest.execute(line)
    assert reply.startswith("FAIL ")
    assert len(reply) < 200
    assert qtest.execute("endianness") == ["OK little"]


def test_an_endless_line_is_dropped_and_answered_once(qtest: Qtest) -> None:
    piece = b"x" * (1 << 20)
    for _ in range(LINE_LIMIT // len(piece) + 2):
        assert run(qtest, piece) == b""
    assert run(qtest, b"\nendianness\n") == b"FAIL line is too long\nOK little\n"


def test_largest_transfer_is_possible(qtest: Qtest) -> None:
    (reply,) = qtest.execute(f"read 0 {TRANSFER_LIMIT}")
    assert len(reply) == len("OK 0x") + 2 * TRANSFER_LIMIT


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_get_one_reply_a_line(data: bytes) -> None:
    replies = run(Qtest(Recorder()), data)
    assert replies.count(b"\n") == data.count(b"\n")
    assert all(line.startswith((b"OK", b"FAIL")) for line in replies.splitlines())


@given(st.integers(0, (1 << 64) - 1))
def test_every_notation_gives_the_number(value: int) -> None:
    assert {parse_number(text, (1 << 64) - 1, "n") for text in (f"{value}", f"{value:#x}", f"0{value:o}")} == {
        value
    }


# --- lines that come again ------------------------------------------------------------------------------

LINES = (
    b"inb 0x21\n",
    b"outb 0x21 5\n",
    b"inw 33\n",
    b"outl 0x80 1\n",
    b"inb 0x10000\n",
    b"inb\n",
    b"\n",
    b"outb 1\n",
)


@given(st.lists(st.sampled_from(LINES)))
def test_a_line_that_comes_again_does_the_same(lines: list[bytes]) -> None:
    one, other = Recorder(), Recorder()
    single, batch = Qtest(one), Qtest(other)
    assert b"".join(run(single, line) for line in lines) == run(batch, b"".join(lines))
    assert one.calls == other.calls


def test_a_line_that_comes_again_reads_anew(qtest: Qtest, target: Recorder) -> None:
    for value in (1, 2, 3):
        target.ports[0x21] = value
        assert run(qtest, b"inb 0x21\n") == b"OK 0x%04x\n" % value


def test_interrupts_of_a_line_that_comes_again_are_told_before_its_reply(qtest: Qtest, target: Recorder) -> None:
    line = b"outb 0x20 0\n"
    assert run(qtest, line) == b"OK\n"
    qtest.irq_changed(4, 1)
    assert run(qtest, line) == b"IRQ raise 4\nOK\n"
    assert run(qtest, line) == b"OK\n"


def test_a_line_that_is_known_may_be_the_end_of_another(qtest: Qtest, target: Recorder) -> None:
    assert run(qtest, b"inb 0x21\n") == b"OK 0x00ff\n"
    assert run(qtest, b"inb 0x21\ninw 0x20 ") == b"OK 0x00ff\n"
    assert run(qtest, b"inb 0x21\n").startswith(b"FAIL inw")


def test_ever_new_lines_take_no_memory_for_ever(qtest: Qtest, target: Recorder) -> None:
    for value in range(3 * ACCESSES):
        run(qtest, b"outl 0x80 %d\n" % value)
    assert len(target.calls) == 3 * ACCESSES
    assert len(qtest._accesses) <= ACCESSES
