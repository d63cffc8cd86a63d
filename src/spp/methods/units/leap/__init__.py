"""LEAP."""
