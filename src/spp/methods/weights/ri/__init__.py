"""RI: a weight is worth its share of its row and of its column."""
