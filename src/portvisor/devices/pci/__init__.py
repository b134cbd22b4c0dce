"""What sits on the PCI bus, and the bus."""
