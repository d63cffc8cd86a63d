"""DessiLBI."""
