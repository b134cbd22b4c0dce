"""Boards: which chips sit where."""
