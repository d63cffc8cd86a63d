"""The report as one page that opens without a network."""

from spp.report.html.page import page

__all__ = ["page"]
