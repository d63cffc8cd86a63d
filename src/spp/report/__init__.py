"""Tables and figures from the record."""
