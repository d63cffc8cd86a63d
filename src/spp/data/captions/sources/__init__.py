"""Captioned images by name, one module each with `open_captions` of an Access."""
