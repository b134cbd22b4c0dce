"""Record, summarise and replay port traffic."""
