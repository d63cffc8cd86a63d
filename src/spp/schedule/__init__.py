"""Who does a plan's stages and how far they are: in process, a local queue, status."""
