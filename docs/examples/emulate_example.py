"""The I/O-instruction emulator alone: no engine, no machine, one device of ten lines.

Run it: python docs/examples/emulate_example.py
"""

from portvisor.kvm.emulate import (
    CONTINUE,
    IO_NEEDED,
    Emulator,
    FlatMemory,
    MemoryOps,
    assemble,
    explain,
    initial_state,
)

DATA_PORT = 0x1F0
SECTOR = b"a sector of data".ljust(512, b".")


def sector_port(port: int, size: int, count: int) -> bytes | None:
    """A device in the kernel: claims one port, gives a whole block at once. None: not mine."""
    return SECTOR[: size * count] if port == DATA_PORT else None


def main() -> None:
    """Two instructions executed, two explained."""
    # A vCPU in 32-bit protected mode, ring 0, with 1 MiB of memory and a program of two instructions.
    memory = FlatMemory(bytearray(1 << 20))
    regs, sregs = initial_state("protected32")
    regs.rip, regs.rdi, regs.rcx, regs.rdx = 0x1000, 0x2000, 256, DATA_PORT
    program = assemble("rep insw", 32) + assemble("out 0x80, al", 32)
    memory.write(regs.rip, program)
    emulator = Emulator(MemoryOps(regs, sregs, memory.read, memory.write, pio_in=sector_port))

    # REP INSW: 256 words, one call of the device, one write to memory.
    assert emulator.step() == CONTINUE
    print("memory at 2000:", memory.read(0x2000, 16), "EDI =", hex(regs.rdi), "ECX =", regs.rcx)

    # OUT 80: nobody claims it, so it comes to user space as KVM_EXIT_IO.
    regs.rax = 0x42
    assert emulator.step() == IO_NEEDED
    assert emulator.io is not None
    print(f"exit: port {emulator.io.port:#x}, size {emulator.io.size}, data {emulator.io.data.hex()}")
    emulator.complete()

    # The same path in words, for ring 3: the I/O permission bitmap decides.
    print(explain("in al, dx", "protected32", {"rdx": 0x60}, cpl=3, open_ports=[0x60], served={0x60: 0x1C}))
    print(explain("in al, dx", "protected32", {"rdx": 0x61}, cpl=3, open_ports=[0x60]))


if __name__ == "__main__":
    main()
