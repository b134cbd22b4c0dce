"""The host's ends of devices: disk images and byte streams."""
