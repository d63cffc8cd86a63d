"""What a network is for: its inputs, loss and metrics; one file per task."""
