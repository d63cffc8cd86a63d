"""Differentiable subset pruning."""
