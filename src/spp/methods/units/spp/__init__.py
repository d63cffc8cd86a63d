"""Solution Path Pruning."""
