"""One module per command of `spp`; nothing but spp.cli.main calls on them."""
