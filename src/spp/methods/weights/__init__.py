"""Methods that choose single weights, one folder each; their contract is method.py."""
