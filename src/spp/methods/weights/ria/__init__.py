"""RIA: a weight is worth its share of its row and its column, times a power of the norm of its input."""
