"""ACPI tables, written from Python: AML, the fixed tables, and how they reach the guest."""
