"""One module per table: each turns the record and the published numbers into `Table`s."""
