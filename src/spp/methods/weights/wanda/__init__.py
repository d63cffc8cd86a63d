"""Wanda: a weight is worth its absolute value times the norm of its input."""
