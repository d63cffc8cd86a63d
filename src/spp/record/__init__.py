"""What was measured: rows, and their mirror in Weights & Biases."""
