"""What a user can do wrong with traces."""

from __future__ import annotations


class TraceError(ValueError):
    """A trace that cannot be read, written or used. The text is one line for the user."""
