"""Lasso on the masks."""
