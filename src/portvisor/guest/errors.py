"""What goes wrong with files that are to become a guest."""

from __future__ import annotations


class GuestFileError(ValueError):
    """A kernel, initramfs, firmware or program that cannot be used; the text is one line for the user."""
