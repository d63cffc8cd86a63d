"""Sets of sentences by name, one module each."""
