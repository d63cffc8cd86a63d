"""WDPruning."""
