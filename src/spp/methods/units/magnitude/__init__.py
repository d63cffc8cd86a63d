"""Magnitude."""
