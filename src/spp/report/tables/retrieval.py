"""The retrieval table: CLIP on COCO. Published numbers only, as this project has no CLIP yet."""

from spp.record.record import Record
from spp.report.published import Published
from spp.report.table import Table
from spp.report.tables import beside

REASON = (
    "This project cannot run it yet: it has neither an adapter for CLIP nor COCO's retrieval task, so there is no "
    "command that fills these cells."
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table of published values."""
    return [beside.published_table("retrieval", "Retrieval: CLIP on COCO, R@1", published, REASON)]
