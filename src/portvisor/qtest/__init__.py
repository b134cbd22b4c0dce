"""QEMU's qtest protocol: a server of our machines, and a client for them and for QEMU."""
