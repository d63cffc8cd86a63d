"""Energy of what a unit puts out."""
