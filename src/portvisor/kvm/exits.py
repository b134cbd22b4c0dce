"""Serving KVM_EXIT_IO and KVM_EXIT_MMIO in user space; the same for both engines.

Made for the path that every port access of a guest takes: the views of `struct kvm_run` are made once, an
exit allocates nothing, and one 32-bit read gives direction, size and port.
"""

from __future__ import annotations

from collections.abc import Callable

from portvisor.kvm import abi
from portvisor.kvm.abi import PIO_DATA
from portvisor.kvm.api import MemoryBus, PortTables

IO_WORD = abi.RUN_IO_DIRECTION // 4
"""direction, size << 8, port << 16: the first word of `run.io`."""
COUNT_WORD = abi.RUN_IO_COUNT // 4
DATA_16 = PIO_DATA // 2
DATA_32 = PIO_DATA // 4
ADDRESS_QUAD = abi.RUN_MMIO_PHYS_ADDR // 8
MMIO_DATA_QUAD = abi.RUN_MMIO_DATA // 8
MMIO_LEN_WORD = abi.RUN_MMIO_LEN // 4

IN_8 = abi.KVM_EXIT_IO_IN | 1 << 8
IN_16 = abi.KVM_EXIT_IO_IN | 2 << 8
IN_32 = abi.KVM_EXIT_IO_IN | 4 << 8
OUT_8 = abi.KVM_EXIT_IO_OUT | 1 << 8
OUT_16 = abi.KVM_EXIT_IO_OUT | 2 << 8
OUT_32 = abi.KVM_EXIT_IO_OUT | 4 << 8


class ExitHandler:
    """Carries the accesses that a vCPU left for to the ports and to the memory bus, and the replies back."""

    __slots__ = ("_bytes", "_dwords", "_memory", "_quads", "io")

    def __init__(self, kvm_run: memoryview, ports: PortTables, memory: MemoryBus) -> None:
        """`kvm_run` as in `api.Vcpu`."""
        self._bytes = kvm_run
        self._dwords = kvm_run.cast("I")
        self._quads = kvm_run.cast("Q")
        self._memory = memory
        self.io: Callable[[], None] = _port_server(kvm_run, ports)
        """Serve KVM_EXIT_IO."""

    def mmio(self) -> None:
        """Serve KVM_EXIT_MMIO."""
        address = self._quads[ADDRESS_QUAD]
        size = self._dwords[MMIO_LEN_WORD]
        if size not in (1, 2, 4, 8):
            self._odd_mmio(address, size)
        elif self._bytes[abi.RUN_MMIO_IS_WRITE]:
            self._memory.write(address, size, self._quads[MMIO_DATA_QUAD] & ((1 << 8 * size) - 1))
        else:
            self._quads[MMIO_DATA_QUAD] = self._memory.read(address, size) & ((1 << 8 * size) - 1)

    def _odd_mmio(self, address: int, size: int) -> None:
        """3, 5, 6 or 7 bytes, the part in one page of an access that spans two: in powers of 2, low first."""
        done = 0
        data = self._quads[MMIO_DATA_QUAD]
        for piece in (4, 2, 1):
            if size & piece:
                mask = (1 << 8 * piece) - 1
                if self._bytes[abi.RUN_MMIO_IS_WRITE]:
                    self._memory.write(address + done, piece, data >> 8 * done & mask)
                else:
                    data &= ~(mask << 8 * done)
                    data |= (self._memory.read(address + done, piece) & mask) << 8 * done
                done += piece
        self._quads[MMIO_DATA_QUAD] = data


def _port_server(kvm_run: memoryview, ports: PortTables) -> Callable[[], None]:
    """`ExitHandler.io`: a closure, as its variables cost less than an object's attributes."""
    data = kvm_run
    words = kvm_run.cast("H")
    dwords = kvm_run.cast("I")
    read_1, read_2, read_4 = ports.reads
    write_1, write_2, write_4 = ports.writes

    def io() -> None:
        access = dwords[IO_WORD]
        kind = access & 0xFFFF
        port = access >> 16
        try:
            if dwords[COUNT_WORD] != 1:
                block(kind, port, dwords[COUNT_WORD])
            elif kind == OUT_8:
                write, offset = write_1[port]
                write(offset, 1, data[PIO_DATA])
            elif kind == IN_8:
                read, offset = read_1[port]
                data[PIO_DATA] = read(offset, 1) & 0xFF
            elif kind == OUT_16:
                write, offset = write_2[port]
                write(offset, 2, words[DATA_16])
            elif kind == IN_16:
                read, offset = read_2[port]
                words[DATA_16] = read(offset, 2) & 0xFFFF
            elif kind == OUT_32:
                write, offset = write_4[port]
                write(offset, 4, dwords[DATA_32])
            elif kind == IN_32:
                read, offset = read_4[port]
                dwords[DATA_32] = read(offset, 4) & 0xFFFFFFFF
        except Exception as error:
            failed(kind, port, error)

    def block(kind: int, port: int, count: int) -> None:
        """A string instruction: its elements as one block, with size and count as the guest has them."""
        size = kind >> 8
        end = PIO_DATA + size * count
        if kind & abi.KVM_EXIT_IO_OUT:
            ports.write_block(port, size, bytes(data[PIO_DATA:end]))
        else:
            data[PIO_DATA:end] = ports.read_block(port, size, count)

    def failed(kind: int, port: int, error: Exception) -> None:
        size = kind >> 8
        write = bool(kind & abi.KVM_EXIT_IO_OUT)
        value = ports.failed(port, size, write, error)
        if not write:
            data[PIO_DATA : PIO_DATA + size] = value.to_bytes(size, "little")

    return io
