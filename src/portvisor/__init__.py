"""Port I/O from the guest instruction to the device, in Python."""
