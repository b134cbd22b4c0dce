"""Kernel modules of a Debian kernel package: where they are and what each needs first."""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from pathlib import Path

import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from portvisor.guest.errors import GuestFileError

SUFFIXES = (".ko", ".ko.xz", ".ko.zst")


def canonical(name: str) -> str:
    """Module names treat - and _ alike."""
    return name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Module:
    """One module, unpacked."""

    name: str
    data: bytes
    depends: tuple[str, ...]
    """Modules that must be loaded before it (modinfo `depends`)."""
    wishes: tuple[str, ...]
    """Modules or aliases that should be loaded before it if they exist (modinfo `softdep pre`)."""
    vermagic: str


class ModuleTree:
    """The modules below `lib/modules/RELEASE`."""

    def __init__(self, folder: Path) -> None:
        self.release = folder.name
        self._folder = folder
        self._paths = {
            canonical(path.name.partition(".ko")[0]): path
            for path in sorted(folder.rglob("*.ko*"))
            if path.name.endswith(SUFFIXES)
        }
        if not self._paths:
            raise GuestFileError(f"{folder}: no kernel modules there")
        self._built_in = self._read_built_in()

    def _read_built_in(self) -> set[str]:
        listing = self._folder / "modules.builtin"
        if not listing.exists():
            return set()
        return {canonical(Path(line).stem) for line in listing.read_text().split()}

    def built_in(self, name: str) -> bool:
        """Whether the kernel contains the module."""
        return canonical(name) in self._built_in

    def load(self, name: str) -> Module:
        """Read one module.

        Raises:
            GuestFileError: the package has none of that name, it is broken, or made for another kernel.
        """
        path = self._paths.get(canonical(name))
        if path is None:
            raise GuestFileError(f"kernel {self.release} has no module {name!r}")
        module = _parse(canonical(name), _unpack(path), path)
        if module.vermagic.split(" ")[0] != self.release:
            raise GuestFileError(
                f"{path.name}: made for kernel {module.vermagic.split(' ')[0]}, this one is {self.release}"
            )
        return module

    def with_dependencies(self, names: list[str]) -> list[Module]:
        """The modules and all they need, in an order that insmod can follow; built-in ones are left out."""
        order: dict[str, Module] = {}
        for name in names:
            self._collect(canonical(name), order, [])
        return list(order.values())

    def _collect(self, name: str, order: dict[str, Module], path: list[str]) -> None:
        if name in order or name in path or self.built_in(name):
            return
        module = self.load(name)
        for needed in (*module.depends, *(wish for wish in module.wishes if wish in self._paths)):
            self._collect(needed, order, [*path, name])
        order[name] = module


def _unpack(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except (lzma.LZMAError, zstandard.ZstdError) as error:
        raise GuestFileError(f"{path}: broken: {error}") from error
    return data


def _parse(name: str, data: bytes, path: Path) -> Module:
    try:
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".modinfo")
        info = section.data() if section else b""
    except ELFError as error:
        raise GuestFileError(f"{path}: no kernel module: {error}") from error
    pairs = [text.partition(b"=")[::2] for text in info.split(b"\0") if text]
    needed = [word for key, value in pairs if key == b"depends" for word in value.decode().split(",") if word]
    wishes = [
        canonical(word)
        for key, value in pairs
        if key == b"softdep" and value.startswith(b"pre:")
        for word in value.decode().partition("pre:")[2].partition("post:")[0].split()
    ]
    vermagic = next((value.decode() for key, value in pairs if key == b"vermagic"), "")
    return Module(name, data, tuple(canonical(word) for word in needed), tuple(wishes), vermagic)
