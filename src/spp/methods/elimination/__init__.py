"""Elimination of units by OBS-Fisher, for the method `obs` and for what refines the order of another one with it."""
