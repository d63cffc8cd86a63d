"""Prunable structure of a model: pairs, adapters, the masked and the compact model, the cost."""
