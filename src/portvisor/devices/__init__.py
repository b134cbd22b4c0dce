"""Chips, one a file. A device imports only `portvisor.ports`; lines, clock and backends are passed in."""
