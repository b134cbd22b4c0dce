"""DMA page registers 80-8F, among them port 80, where firmware writes its POST codes.

Source: Intel PCH data sheet, "DMA Low Page Registers"; IBM PC AT Technical Reference, "DMA page registers".

Registers (offset: port): 87, 83, 81, 82 are the pages of channels 0-3, 8B, 89, 8A of channels 5-7, 8F of the
refresh (channel 4). The others are plain latches. All can be read.

Port 80 keeps a log of the last POST codes; writes that repeat the code before (port 80 serves as a delay) are
not logged again.

Not modelled: the upper pages of EISA systems.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from portvisor.ports import Device, PortRange

POST_CODE = 0x0
PAGE_OF_CHANNEL = (0x7, 0x3, 0x1, 0x2, 0xF, 0xB, 0x9, 0xA)
"""Offset of each channel's page register."""
POST_LOG = 256

PageSource = Callable[[int], int]
"""Gives the page register of a channel (0-7)."""


def no_pages(_channel: int) -> int:
    """Page 0 for every channel."""
    return 0


class NeedsPages(Protocol):
    """A DMA controller, as the page registers see it."""

    page_of: PageSource


def _empty_log() -> deque[int]:
    return deque(maxlen=POST_LOG)


class DmaPages(Device):
    """The page registers.

    Args:
        controller: whose addresses they complete.
        on_post_code: told about each code that is logged.
        aliases: answer at 90-9F without 92, as a PCH does.
    """

    name = "dma-pages"

    REGISTERS: ClassVar[dict[int, str]] = {
        POST_CODE: "POST code",
        **{offset: f"DMA channel {channel} page" for channel, offset in enumerate(PAGE_OF_CHANNEL)},
    }

    @dataclass
    class State:
        """The latches and the log."""

        latches: bytearray = field(default_factory=lambda: bytearray(16))
        post_codes: deque[int] = field(default_factory=_empty_log)

    state: State

    def __init__(
        self,
        controller: NeedsPages,
        on_post_code: Callable[[int], None] | None = None,
        *,
        aliases: bool = False,
    ) -> None:
        super().__init__()
        self.on_post_code = on_post_code
        controller.page_of = self.page
        pages = PortRange(0x80, 16, name="dma page reg")
        self.ports = (pages, *ALIASES) if aliases else (pages,)

    def page(self, channel: int) -> int:
        """Page register of a channel (0-7)."""
        return self.state.latches[PAGE_OF_CHANNEL[channel]]

    @property
    def post_codes(self) -> list[int]:
        """The last codes written to port 80, oldest first."""
        return list(self.state.post_codes)

    def read(self, offset: int, size: int) -> int:
        return self.state.latches[offset]

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.latches[offset] = value
        if offset == POST_CODE:
            self._log(value)

    def _log(self, code: int) -> None:
        log = self.state.post_codes
        if not log or log[-1] != code:
            log.append(code)
            if self.on_post_code:
                self.on_post_code(code)


ALIASES = (
    PortRange(0x90, 2, name="dma page reg"),
    PortRange(0x93, 13, name="dma page reg", offset=3),
)
