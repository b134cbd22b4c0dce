from collections.abc import Callable

from typing_extensions import Buffer

class Batch:
    """The memory of some columns."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

class Recorder:
    registers: dict[str, int]
    depth: int
    def __new__(cls, capacity: int, /) -> Recorder: ...
    def now(self) -> int: ...
    def set_source(self, source: Callable[[], int] | int, /) -> None: ...
    def set_cpu(self, rip: Buffer | None, route: Buffer | None, /) -> None: ...
    def enter(self) -> None: ...
    def leave(
        self,
        kind: int,
        port: int,
        size: int,
        value: int,
        device: int,
        register: int,
        data: bytes | None,
        flags: int = 0,
        /,
    ) -> None: ...
    def abandon(self) -> None: ...
    def event(
        self,
        kind: int,
        port: int,
        size: int,
        value: int,
        device: int,
        register: int,
        data: bytes | None,
        flags: int = 0,
        /,
    ) -> None: ...
    def register(self, name: str, /) -> int: ...
    def open(self) -> None: ...
    def next(self, seconds: float, /) -> tuple[Batch, int, int, int, list[tuple[int, int, int, int]]] | None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...

class Tap:
    def __new__(
        cls,
        recorder: Recorder,
        function: Callable[..., object],
        namer: Callable[[int, int, bool], str] | None,
        port: int,
        size: int,
        device: int,
        register: int,
        flags: int,
        write: bool,
        ports: bytes | None,
        /,
    ) -> Tap: ...
    def __call__(self, *args: int) -> int: ...
