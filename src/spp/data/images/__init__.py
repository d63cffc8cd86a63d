"""Photographs of a few hundred pixels, too many for memory, in the forms they are kept in: one module per form."""
