"""Data sets: those of images by name, one file each in `sources`; one's own by a factory; the loaders over them."""
