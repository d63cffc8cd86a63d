"""Texts by name, one module each."""
