"""hydra/launcher=spp: all points of a multirun as one sweep."""
