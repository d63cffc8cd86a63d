"""Image data sets: one file per data set in `sources`, and the Lightning data module over them."""
