"""UPop."""
