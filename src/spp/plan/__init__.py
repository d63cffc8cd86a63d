"""What shall be done: stages, their keys and the merged graph of a sweep (pure data and functions)."""
