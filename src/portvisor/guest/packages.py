"""Guest software out of Debian packages, fetched by `apt-get download` and unpacked into a cache per user.

No root is needed: where the system has no package lists (or old ones), the cache gets lists of its own. Once
a package is in the cache, nothing is asked of the network again until `refresh`.

Layout of the cache (`$XDG_CACHE_HOME/portvisor`, else `~/.cache/portvisor`)::

    lock                            held while something is fetched
    apt/                            package lists, for when the system's do not do
    packages/NAME/manifest.json     which version is current, its checksum and dependencies
    packages/NAME/VERSION/          the unpacked package
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

Progress = Callable[[str], None]
"""Told in a few words what is being done, before anything that may take over a second."""

KERNEL_METAPACKAGE = "linux-image-amd64"

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.1
_KERNEL = re.compile(r"linux-image-\d[\w.+~-]*-amd64")
_TEMPORARY = ".fetching-"

_APT_CONF = """\
// Hooks of the system's apt act on the system; the lists of this cache need none.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::Contents-deb;
Acquire::Languages "none";
APT::Sandbox::User "root";
"""
_APT_OPTIONS = ("-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20")

_NO_NETWORK = (
    "failure resolving",
    "Could not resolve",
    "Could not connect",
    "Cannot initiate the connection",
    "Unable to connect",
    "Connection failed",
    "Connection timed out",
    "Network is unreachable",
)
_NOT_IN_LISTS = ("Unable to locate package", "Can't find a source to download", "no candidate", "404  Not Found")


class PackageError(RuntimeError):
    """A package or a file of one cannot be had. The text is one line for the user."""


class _NoNetworkError(PackageError):
    """The network is the reason: a file that the host has installed may stand in."""


class _NotInListsError(PackageError):
    """The package lists do not have it, or have a version that the archive no longer has."""


@dataclass(frozen=True, slots=True)
class Package:
    """What the cache knows of an unpacked package."""

    name: str
    version: str
    architecture: str
    sha256: str
    """Of the .deb file."""
    depends: tuple[str, ...]
    """Names of the packages that it depends on, alternatives included, without versions."""


def cache_directory() -> Path:
    """Where this user's cache is (XDG base directory specification).

    Raises:
        PackageError: the user has no home directory.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured) / "portvisor"
    try:
        return Path.home() / ".cache" / "portvisor"
    except RuntimeError:
        raise PackageError("no home directory to keep packages in: set XDG_CACHE_HOME") from None


class PackageCache:
    """Unpacked Debian packages in one directory. Safe for several processes at once."""

    def __init__(self, directory: Path | None = None, progress: Progress | None = None) -> None:
        """Args: `directory` of the cache, by default `cache_directory()`; `progress` as `Progress`."""
        self.directory = directory or cache_directory()
        self._progress = progress or (lambda _message: None)

    def package(self, name: str, refresh: bool = False) -> Package:
        """The package as it is in the cache, fetched if it is not there.

        Args:
            name: Debian package name.
            refresh: update the package lists and fetch again if there is a newer version.

        Raises:
            PackageError: it cannot be had.
        """
        if not _NAME.fullmatch(name):
            raise PackageError(f"{name!r} is no package name: allowed are lower-case letters, digits and + - .")
        known = self._known(name)
        if known and not refresh:
            return known
        try:
            with self._lock():
                known = self._known(name)
                if known and not refresh:
                    return known
                return self._fetch(name, known, refresh)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise PackageError(f"{name}: the disk that holds {self.directory} is full") from None
            raise PackageError(f"{name}: {error.filename or self.directory}: {error.strerror}") from None

    def root(self, name: str, refresh: bool = False) -> Path:
        """Directory of the unpacked package: the `/` of its files.

        Raises:
            PackageError: as for `package`.
        """
        package = self.package(name, refresh)
        return self._root(package.name, package.version)

    def file(self, name: str, path: str, refresh: bool = False) -> Path:
        """A file of a package.

        Without network, a file that the host has installed at the same place stands in, and `progress` is told.

        Args:
            name: Debian package name.
            path: of the file in the package, without the leading slash.
            refresh: as for `package`.

        Raises:
            PackageError: the package cannot be had, or has no such file.
        """
        relative = PurePosixPath(path.lstrip("/"))
        try:
            root = self.root(name, refresh)
        except _NoNetworkError as error:
            installed = Path("/") / relative
            if refresh or not installed.is_file():
                raise
            self._progress(f"{error}; using the installed {installed}")
            return installed
        found = root / relative
        if not found.is_file() or not found.resolve().is_relative_to(root.resolve()):
            raise PackageError(f"package {name} {root.name} has no file {relative}")
        return found

    def kernel_package(self, refresh: bool = False) -> str:
        """Name of the package with Debian's current kernel, which `linux-image-amd64` depends on.

        Raises:
            PackageError: as for `package`.
        """
        meta = self.package(KERNEL_METAPACKAGE, refresh)
        for name in meta.depends:
            if _KERNEL.fullmatch(name):
                return name
        raise PackageError(f"{KERNEL_METAPACKAGE} {meta.version} depends on no linux-image-VERSION-amd64")

    # --- what is there ----------------------------------------------------------------------------

    def _home(self, name: str) -> Path:
        return self.directory / "packages" / name

    def _root(self, name: str, version: str) -> Path:
        return self._home(name) / version.replace(":", "%3a")  # as apt does: a colon separates paths in lists

    def _known(self, name: str) -> Package | None:
        try:
            fields = json.loads((self._home(name) / "manifest.json").read_text())
            package = Package(**{**fields, "depends": tuple(fields["depends"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return package if self._root(name, package.version).is_dir() else None

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress("waiting for another process that fetches packages")
                fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in self.directory.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    # --- fetching ---------------------------------------------------------------------------------

    def _fetch(self, name: str, known: Package | None, refresh: bool) -> Package:
        with tempfile.TemporaryDirectory(
            prefix=_TEMPORARY, dir=self.directory, ignore_cleanup_errors=True
        ) as place:
            deb = self._download(name, Path(place), refresh)
            package = _describe(deb)
            if known and known.sha256 == package.sha256:
                return known
            self._progress(f"unpacking {name} {package.version}")
            unpacked = Path(place) / "root"
            _dpkg_deb("--extract", str(deb), str(unpacked))
            self._install(package, unpacked)
        return package

    def _install(self, package: Package, unpacked: Path) -> None:
        """Make the unpacked package the current one: whole or not at all."""
        home = self._home(package.name)
        home.mkdir(parents=True, exist_ok=True)
        root = self._root(package.name, package.version)
        shutil.rmtree(root, ignore_errors=True)
        unpacked.rename(root)
        manifest = unpacked.parent / "manifest.json"
        manifest.write_text(json.dumps(asdict(package), indent=2) + "\n")
        manifest.replace(home / "manifest.json")
        for old in home.iterdir():
            if old.is_dir() and old != root:
                shutil.rmtree(old, ignore_errors=True)

    def _download(self, name: str, place: Path, refresh: bool) -> Path:
        """The .deb file, by the first lists that have it: the system's, the cache's, those of the archive."""
        self._progress(f"fetching package {name}")
        own_lists = self._own_lists()
        if not refresh:
            for options in ((), own_lists):
                with contextlib.suppress(_NotInListsError):
                    return self._download_by(options, name, place)
        problem = self._update(own_lists)
        try:
            return self._download_by(own_lists, name, place)
        except _NotInListsError as error:
            raise problem or PackageError(str(error)) from None

    def _download_by(self, options: Sequence[str], name: str, place: Path) -> Path:
        self._apt_get(name, [*options, "download", name], place)
        for deb in place.glob("*.deb"):
            return deb
        raise _NotInListsError(f"no package {name} in the sources that apt is configured for")

    def _own_lists(self) -> Sequence[str]:
        """Options that make apt keep everything in the cache."""
        apt = self.directory / "apt"
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (apt / directory).mkdir(parents=True, exist_ok=True)
        conf = apt / "apt.conf"
        conf.write_text(_APT_CONF)
        return ("-c", str(conf), "-o", f"Dir::State={apt / 'state'}", "-o", f"Dir::Cache={apt / 'cache'}")

    def _update(self, options: Sequence[str]) -> PackageError | None:
        """Update the cache's lists. One source of several may be down: whether that matters is seen later."""
        self._progress("updating package lists")
        try:
            self._apt_get("package lists", [*options, "update"], self.directory)
        except PackageError as error:
            return error
        return None

    def _apt_get(self, subject: str, arguments: Sequence[str], place: Path) -> None:
        program = shutil.which("apt-get")
        if program is None:
            raise PackageError(f"{subject}: apt-get not found; packages can only be fetched on Debian and its kin")
        done = _run([program, *_APT_OPTIONS, *arguments], place)
        output = done.stdout
        if any(sign in output for sign in _NO_NETWORK):  # apt-get update calls it a success
            raise _NoNetworkError(f"{subject}: no network: {_reason(output)}")
        if done.returncode == 0:
            return
        _raise_if_disk_full(output)
        if any(sign in output for sign in _NOT_IN_LISTS):
            raise _NotInListsError(f"no package {subject} in the sources that apt is configured for")
        raise PackageError(f"{subject}: apt-get: {_reason(output)}")


def _raise_if_disk_full(output: str) -> None:
    if "No space left on device" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _run(command: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Run with output in English, standard error with the rest."""
    return subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def _reason(output: str) -> str:
    """The line of a tool's output that says most: the last error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E: ", "W: ", "dpkg-deb: error"))]
    return " ".join((errors or lines or ["it failed without a word"])[-1].split())


def _dpkg_deb(*arguments: str) -> str:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise PackageError("dpkg-deb not found; packages can only be unpacked on Debian and its kin")
    done = _run([program, *arguments], Path("/"))
    if done.returncode:
        _raise_if_disk_full(done.stdout)
        raise PackageError(f"{Path(arguments[1]).name}: {_reason(done.stdout)}")
    return done.stdout


def _describe(deb: Path) -> Package:
    """The manifest of a .deb file."""

    def field(name: str) -> str:
        return _dpkg_deb("--field", str(deb), name).strip()

    with deb.open("rb") as data:
        checksum = hashlib.file_digest(data, "sha256").hexdigest()
    depends = re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]+)", field("Depends"))
    return Package(field("Package"), field("Version"), field("Architecture"), checksum, tuple(depends))


def package_root(name: str, *, refresh: bool = False, progress: Progress | None = None) -> Path:
    """`PackageCache.root` of this user's cache."""
    return PackageCache(progress=progress).root(name, refresh)


def package_file(name: str, path: str, *, refresh: bool = False, progress: Progress | None = None) -> Path:
    """`PackageCache.file` of this user's cache."""
    return PackageCache(progress=progress).file(name, path, refresh)


def kernel_package(*, refresh: bool = False, progress: Progress | None = None) -> str:
    """`PackageCache.kernel_package` of this user's cache."""
    return PackageCache(progress=progress).kernel_package(refresh)
