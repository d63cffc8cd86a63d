"""The methods that choose whole units: a folder each, with its settings (config.py) and its search (search.py)."""
