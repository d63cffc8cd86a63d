"""What to keep: the contract of a method (method.py), and a folder for each (units/)."""
