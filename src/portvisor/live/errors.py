"""What can go wrong between a machine and its viewer, as one line."""

from __future__ import annotations


class LiveError(RuntimeError):
    """A socket that cannot be offered or used, or an answer that is not understood."""
