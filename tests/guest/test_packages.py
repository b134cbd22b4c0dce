"""The package cache, against a stand-in for apt-get; and once against the real one, as an ordinary user."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portvisor.guest import packages
from portvisor.guest.packages import PackageCache, PackageError, cache_directory

SRC = Path(__file__).parents[2] / "src"

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")

APT_GET = """\
#!/bin/sh
# Stand-in for apt-get: packages are in $FAKE_APT/archive; only those in $FAKE_APT/lists are known.
printf '%s\\n' "$*" >> "$FAKE_APT/log"
for last; do :; done
if [ -e "$FAKE_APT/says" ]; then cat "$FAKE_APT/says"; exit 100; fi
case " $* " in
*" update "*)
    if [ -e "$FAKE_APT/update-says" ]; then cat "$FAKE_APT/update-says"; exit 0; fi
    cp "$FAKE_APT"/archive/*.deb "$FAKE_APT/lists/" ;;
*" download "*)
    cp "$FAKE_APT/lists/${last}"_*.deb . 2>/dev/null || { echo "E: Unable to locate package $last"; exit 100; } ;;
esac
"""


class Archive:
    """Packages that the stand-in can give."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("archive", "lists", "bin"):
            (directory / name).mkdir(parents=True)
        program = directory / "bin" / "apt-get"
        program.write_text(APT_GET)
        program.chmod(0o755)

    def add(self, name: str, version: str, files: dict[str, str], depends: str = "", listed: bool = True) -> None:
        tree = self.directory / f"{name}-{version}"
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        control = tree / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        control.write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
            + (f"Depends: {depends}\n" if depends else "")
            + "Description: test\n"
        )
        deb = self.directory / "archive" / f"{name}_{version.replace(':', '%3a')}_all.deb"
        for old in self.directory.glob(f"*/{name}_*.deb"):
            old.unlink()
        subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, stdout=subprocess.DEVNULL)
        if listed:
            shutil.copy(deb, self.directory / "lists")

    def says(self, text: str, update: bool = False) -> None:
        (self.directory / ("update-says" if update else "says")).write_text(text)

    @property
    def calls(self) -> list[str]:
        """The last two words of every call of apt-get."""
        log = self.directory / "log"
        return [" ".join(line.split()[-2:]) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive(tmp_path / "apt")
    monkeypatch.setenv("FAKE_APT", str(made.directory))
    monkeypatch.setenv("PATH", f"{made.directory / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


@pytest.fixture
def bios(archive: Archive) -> Archive:
    archive.add("seabios", "1.16.2-1", {"usr/share/seabios/bios-256k.bin": "firmware"})
    return archive


class TestCache:
    def test_a_file_of_a_package(self, bios: Archive) -> None:
        found = packages.package_file("seabios", "usr/share/seabios/bios-256k.bin")
        assert found.read_text() == "firmware"
        assert found.is_relative_to(packages.package_root("seabios"))

    def test_the_second_time_asks_nobody(self, bios: Archive) -> None:
        packages.package_root("seabios")
        bios.says("E: broken")
        packages.package_root("seabios")
        assert bios.calls == ["download seabios"]

    def test_the_manifest_tells_version_and_checksum(self, bios: Archive) -> None:
        package = PackageCache().package("seabios")
        assert (package.name, package.version, package.architecture) == ("seabios", "1.16.2-1", "all")
        assert len(package.sha256) == 64
        assert PackageCache().package("seabios") == package

    def test_refresh_takes_the_newer_version_and_drops_the_older(self, bios: Archive) -> None:
        old = packages.package_root("seabios")
        bios.add("seabios", "1.17.0-1", {"usr/share/seabios/bios-256k.bin": "newer"}, listed=False)
        assert packages.package_root("seabios") == old
        new = packages.package_root("seabios", refresh=True)
        assert (new / "usr/share/seabios/bios-256k.bin").read_text() == "newer"
        assert not old.exists()
        assert bios.calls[-2:] == [bios.calls[-2], "download seabios"]
        assert bios.calls[-2].endswith(" update")

    def test_refresh_without_a_newer_version_keeps_the_files(self, bios: Archive) -> None:
        before = packages.package_file("seabios", "usr/share/seabios/bios-256k.bin").stat()
        after = packages.package_file("seabios", "usr/share/seabios/bios-256k.bin", refresh=True).stat()
        assert before.st_ino == after.st_ino

    def test_lists_of_the_system_that_do_not_have_it(self, archive: Archive) -> None:
        archive.add("seabios", "1", {"a": "x"}, listed=False)
        told: list[str] = []
        packages.package_root("seabios", progress=told.append)
        assert told == ["fetching package seabios", "updating package lists", "unpacking seabios 1"]
        own = (archive.directory / "log").read_text().splitlines()[-2]
        cache = cache_directory()
        assert f"Dir::State={cache}/apt/state" in own
        assert f"Dir::Cache={cache}/apt/cache" in own

    def test_a_source_that_is_down_does_not_matter_if_others_have_the_package(self, archive: Archive) -> None:
        archive.add("seabios", "1", {"a": "x"})
        archive.says("W: Failed to fetch http://other  Could not connect to other:80", update=True)
        assert packages.package_file("seabios", "a", refresh=True).read_text() == "x"

    def test_a_manifest_that_is_damaged_is_fetched_again(self, bios: Archive) -> None:
        root = packages.package_root("seabios")
        (root.parent / "manifest.json").write_text("{")
        assert packages.package_root("seabios") == root
        assert len(bios.calls) == 2

    def test_leftovers_of_a_killed_process_are_removed(self, bios: Archive) -> None:
        leftover = cache_directory() / ".fetching-dead"
        leftover.mkdir(parents=True)
        packages.package_root("seabios")
        assert not leftover.exists()
        assert sorted(entry.name for entry in cache_directory().iterdir()) == ["apt", "lock", "packages"]

    def test_one_process_at_a_time(self, bios: Archive) -> None:
        cache_directory().mkdir(parents=True)
        script = "from portvisor.guest.packages import *; package_root('seabios', progress=print)"
        with (cache_directory() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            other = subprocess.Popen(
                [sys.executable, "-u", "-c", script],
                env={**os.environ, "PYTHONPATH": str(SRC)},
                stdout=subprocess.PIPE,
                text=True,
            )
            assert other.stdout is not None
            assert other.stdout.readline() == "waiting for another process that fetches packages\n"
            assert bios.calls == []
        told, _ = other.communicate(timeout=30)
        assert told == "fetching package seabios\nunpacking seabios 1.16.2-1\n"
        assert other.returncode == 0

    def test_the_kernel_that_the_metapackage_depends_on(self, archive: Archive) -> None:
        archive.add("linux-image-amd64", "6.1.192-2", {}, depends="linux-image-6.1.0-53-amd64 (= 6.1.192-2)")
        assert packages.kernel_package() == "linux-image-6.1.0-53-amd64"
        archive.says("E: broken")
        assert packages.kernel_package() == "linux-image-6.1.0-53-amd64"

    def test_an_epoch_makes_no_colon_in_a_path(self, archive: Archive) -> None:
        """Such a path would be two in LD_LIBRARY_PATH."""
        archive.add("libx", "2:1.02-3", {"a": "x"})
        assert PackageCache().package("libx").version == "2:1.02-3"
        assert packages.package_file("libx", "a").parent.name == "2%3a1.02-3"

    def test_dependencies_by_name(self, archive: Archive) -> None:
        archive.add("grub-common", "2", {}, depends="libc6 (>= 2.34), liba1 | libb2 (= 1:2~3), gettext-base")
        assert PackageCache().package("grub-common").depends == ("libc6", "liba1", "libb2", "gettext-base")


class TestErrors:
    def refused(self, name: str = "seabios", path: str = "usr/share/seabios/bios.bin") -> str:
        with pytest.raises(PackageError) as caught:
            packages.package_file(name, path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_no_such_package(self, archive: Archive) -> None:
        archive.add("other", "1", {})
        assert self.refused() == "no package seabios in the sources that apt is configured for"

    def test_no_such_file(self, bios: Archive) -> None:
        assert self.refused() == "package seabios 1.16.2-1 has no file usr/share/seabios/bios.bin"

    def test_a_path_out_of_the_package(self, bios: Archive) -> None:
        assert "has no file" in self.refused(path="../manifest.json")

    @pytest.mark.parametrize("name", ["", "a", "Sea", "../x", "sea bios", "-o"])
    def test_impossible_name(self, archive: Archive, name: str) -> None:
        assert self.refused(name).startswith(f"{name!r} is no package name: allowed are")
        assert archive.calls == []

    def test_no_apt_get(self, bios: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(bios.directory))
        assert self.refused() == "seabios: apt-get not found; packages can only be fetched on Debian and its kin"

    def test_no_network(self, bios: Archive) -> None:
        bios.says("Err:1 http://x\nE: Failed to fetch http://x/y.deb  Temporary failure resolving 'x'\n")
        assert self.refused(path="no/such/file") == (
            "seabios: no network: E: Failed to fetch http://x/y.deb Temporary failure resolving 'x'"
        )

    def test_no_network_and_no_lists(self, archive: Archive) -> None:
        archive.says("W: Failed to fetch http://x/InRelease  Could not connect to x:80\n", update=True)
        assert self.refused(path="no/such/file").startswith("package lists: no network: W: Failed to fetch")

    def test_no_network_but_the_host_has_the_file(self, bios: Archive, tmp_path: Path) -> None:
        bios.says("E: Failed to fetch http://x/y.deb  Temporary failure resolving 'x'\n")
        installed = tmp_path / "installed.bin"
        installed.write_text("mine")
        told: list[str] = []
        assert packages.package_file("seabios", str(installed), progress=told.append) == installed
        assert told[-1].endswith(f"using the installed {installed}")

    def test_disk_full_while_downloading(self, bios: Archive) -> None:
        bios.says("E: Failed to fetch http://x  Error writing to file - write (28: No space left on device)\n")
        assert self.refused() == f"seabios: the disk that holds {cache_directory()} is full"

    def test_disk_full_while_unpacking(self, bios: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        program = bios.directory / "bin" / "dpkg-deb"
        real = shutil.which("dpkg-deb")
        program.write_text(
            f'#!/bin/sh\n[ "$1" = --extract ] || exec {real} "$@"\n'
            "echo 'tar: x: Cannot write: No space left on device'; exit 2\n"
        )
        program.chmod(0o755)
        assert self.refused() == f"seabios: the disk that holds {cache_directory()} is full"
        assert not list(cache_directory().glob("packages/*/*"))

    def test_any_other_trouble_of_apt_get(self, bios: Archive) -> None:
        bios.says("Reading package lists...\nE: The list of sources could not be read.\n")
        assert self.refused() == "seabios: apt-get: E: The list of sources could not be read."

    def test_a_package_that_is_damaged(self, bios: Archive) -> None:
        (bios.directory / "lists" / "seabios_1.16.2-1_all.deb").write_bytes(b"no archive")
        assert self.refused().startswith("seabios_1.16.2-1_all.deb: dpkg-deb: error:")

    def test_a_cache_that_cannot_be_made(
        self, bios: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert self.refused() == f"seabios: {tmp_path}/file/portvisor: Not a directory"


class TestDirectory:
    def test_relative_xdg_cache_home_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", "/home/someone")
        assert cache_directory() == Path("/home/someone/.cache/portvisor")


@pytest.fixture
def world_readable() -> Iterator[Path]:
    """A directory that another user can write to (pytest's own is private)."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.mark.guest
@pytest.mark.parametrize("lists", ["of the system", "of the cache"])
def test_an_ordinary_user_fetches_a_real_package(world_readable: Path, lists: str) -> None:
    if shutil.which("apt-get") is None or shutil.which("setpriv") is None:
        pytest.skip("needs apt-get and setpriv")
    cache = world_readable / "cache"
    script = (
        "from portvisor.guest.packages import *\n"
        "print(package_file('seabios', 'usr/share/seabios/bios-256k.bin', refresh=REFRESH))\n"
    ).replace("REFRESH", str(lists == "of the cache"))
    drop: list[str] = []
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        drop = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        shutil.copytree(SRC / "portvisor" / "guest", world_readable / "portvisor" / "guest")
    done = subprocess.run(
        [*drop, sys.executable, "-c", script],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(world_readable if drop else SRC)},
        cwd=world_readable,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "no network" in done.stderr:
        pytest.skip("no network")
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.strip())
    assert found.stat().st_size == 256 * 1024
    assert found.is_relative_to(cache)
