"""Masks of single weights: patterns, permutations, statistics of inputs, updates of what is kept, shares of layers."""
