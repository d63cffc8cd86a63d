"""Optimal Brain Surgeon on units, with the Fisher information of the branches' outputs."""
