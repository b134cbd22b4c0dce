"""From an exception to one clear line and an exit status."""

from __future__ import annotations

from portvisor.backends.char import BackendError
from portvisor.backends.image import ImageError
from portvisor.guest.errors import GuestFileError
from portvisor.guest.packages import PackageError
from portvisor.kvm.api import EngineError
from portvisor.live.errors import LiveError
from portvisor.ports.ioports import IoportsError
from portvisor.qtest.mtree import MtreeError
from portvisor.qtest.options import OptionError
from portvisor.trace.errors import TraceError

USER_ERRORS = (
    EngineError,
    ImageError,
    BackendError,
    PackageError,
    IoportsError,
    GuestFileError,
    TraceError,
    MtreeError,
    OptionError,
    LiveError,
)


def describe(error: BaseException) -> str | None:
    """The line for an error that a user can cause; None for a defect of portvisor."""
    if isinstance(error, USER_ERRORS):
        return str(error)
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}"
    return None
