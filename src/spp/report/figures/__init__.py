"""One module per figure: each turns the record and the published numbers into `Drawing`s."""
