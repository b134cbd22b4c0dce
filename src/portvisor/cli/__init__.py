"""The `portvisor` command."""
