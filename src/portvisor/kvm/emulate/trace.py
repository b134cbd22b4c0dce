"""What the emulator did, as structured steps: filled only if the emulator was given a list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from portvisor.kvm.abi import KVM_EXIT_IO_OUT
from portvisor.kvm.emulate.decode import PREFIX_NAMES, Instruction


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its kind, a sentence, and the figures behind the sentence."""

    kind: str
    """decode, permission, count, memory, port, exit, fault, trap, done or pause."""
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind, "text": self.text, "data": self.data}


def prefix_name(byte: int) -> str:
    """What a prefix is called."""
    return PREFIX_NAMES.get(byte, f"rex {byte:02x}")


def decode_step(instruction: Instruction, text: str) -> Step:
    """The decode step; `text` is the instruction in assembly."""
    prefixes = [{"byte": byte, "name": prefix_name(byte)} for byte in instruction.prefixes]
    data: dict[str, Any] = {
        "bytes": instruction.code.hex(" "),
        "instruction": text,
        "prefixes": prefixes,
        "opcode": instruction.opcode,
        "operand_size": instruction.size,
        "code_bits": instruction.bits,
    }
    if instruction.immediate is not None:
        data["immediate"] = instruction.immediate
    sizes = f"{8 * instruction.size}-bit operand"
    if instruction.string:
        data |= {"address_size": instruction.address_size, "segment": instruction.segment}
        sizes += f", {8 * instruction.address_size}-bit address, segment {instruction.segment.upper()}"
    names = ", ".join(f"{item['byte']:02x} {item['name']}" for item in prefixes)
    before = f"prefixes {names}; " if names else ""
    return Step("decode", f"{text}: {before}opcode {instruction.opcode:02x}; {sizes}", data)


def memory_step(verb: str, segment: str, linear: int, size: int, count: int, data: bytes) -> Step:
    """A block read from or written to guest memory."""
    figures = {"segment": segment, "linear": linear, "size": size, "count": count, "data": data.hex(" ")}
    return Step("memory", f"{count} x {size} bytes {verb} linear {linear:#x} ({segment.upper()})", figures)


def port_step(direction: int, port: int, size: int, count: int, data: bytes | None, claimed: bool) -> Step:
    """A port access: served in the kernel, or an exit to user space."""
    out = direction == KVM_EXIT_IO_OUT
    figures: dict[str, Any] = {"direction": "out" if out else "in", "port": port, "size": size, "count": count}
    if data is not None:
        figures["data"] = data.hex(" ")
    access = f"{count} x {size} bytes {'to' if out else 'from'} port {port:#x}"
    if claimed:
        return Step("port", f"{access}: served in the kernel", figures)
    return Step("exit", f"{access}: nobody in the kernel claims it, KVM_EXIT_IO", figures)
