"""Which units to keep: one file per method."""
