"""SparseGPT: mask and update in one sweep over the columns."""
