"""Magnitude: a weight is worth its absolute value."""
