"""One module per data set, named as `data.name`, with the functions that spp.data.registry calls."""
