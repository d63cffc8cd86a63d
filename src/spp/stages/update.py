"""Stage `update`: SPP's search, under the name that the paper gives it."""

from spp.stages.search import run

__all__ = ["run"]
