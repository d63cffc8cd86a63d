"""Attacks on spp: wrong words, deaths at every moment, damaged stores. `make faults` runs all of them."""
