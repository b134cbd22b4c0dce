"""Virtual machines: one interface, `/dev/kvm` or a software CPU behind it."""
