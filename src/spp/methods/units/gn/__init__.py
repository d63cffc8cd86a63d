"""Joint Gauss-Newton over all masks."""
