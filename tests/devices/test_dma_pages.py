"""DMA page registers and the POST code port."""

from __future__ import annotations

from devices.shared_bus import bus
from portvisor.devices.dma_pages import POST_LOG, DmaPages
from portvisor.devices.i8237 import DmaController
from portvisor.testing import DeviceSuite


class TestGeneric(DeviceSuite):
    def make(self) -> DmaPages:
        return DmaPages(DmaController(), aliases=True)


def test_all_sixteen_latches_read_back() -> None:
    space = bus(DmaPages(DmaController()))
    for port in range(0x80, 0x90):
        space.write(port, 1, port ^ 0x5A)
    assert [space.read(port, 1) for port in range(0x80, 0x90)] == [port ^ 0x5A for port in range(0x80, 0x90)]


def test_page_of_each_channel() -> None:
    pages = DmaPages(DmaController())
    space = bus(pages)
    for channel, port in {0: 0x87, 1: 0x83, 2: 0x81, 3: 0x82, 4: 0x8F, 5: 0x8B, 6: 0x89, 7: 0x8A}.items():
        space.write(port, 1, 0x10 + channel)
        assert pages.page(channel) == 0x10 + channel


def test_linux_finds_an_8237_because_87_does_not_float() -> None:
    assert bus(DmaPages(DmaController())).read(0x87, 1) != 0xFF


def test_port_80_logs_post_codes_without_repeats() -> None:
    told: list[int] = []
    pages = DmaPages(DmaController(), told.append)
    space = bus(pages)
    for code in (0x01, 0x02, 0x02, 0x02, 0x01):
        space.write(0x80, 1, code)
    space.write(0x84, 1, 0x77)
    assert pages.post_codes == told == [0x01, 0x02, 0x01]
    assert space.read(0x80, 1) == 0x01


def test_the_log_keeps_the_last_codes() -> None:
    pages = DmaPages(DmaController())
    space = bus(pages)
    for code in range(POST_LOG + 10):
        space.write(0x80, 1, code & 0xFF)
    assert len(pages.post_codes) == POST_LOG
    assert pages.post_codes[-1] == (POST_LOG + 9) & 0xFF


def test_pch_repeats_80_to_8f_at_90_but_not_at_92() -> None:
    space = bus(DmaPages(DmaController(), aliases=True))
    for port in [0x90, 0x91, *range(0x93, 0xA0)]:
        space.write(port, 1, port)
        assert space.read(port - 0x10, 1) == port
    assert space.owner(0x92) is None
