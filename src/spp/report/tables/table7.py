"""Table 7: latency of the dense and the compressed CLIP; neither published nor measured numbers are at hand."""

from spp.record.record import Record
from spp.report.published import Published
from spp.report.table import Cell, Column, Table

COLUMNS = (
    Column("model", is_number=False),
    Column("network", is_number=False),
    Column("latency, ours (ms)"),
    Column("latency, published (ms)"),
)
LEGEND = (
    "This project cannot run it yet: it prunes CLIP, but no stage records latencies, so there is no command that fills "
    "these cells. The paper's values are not known."
)
MODELS = ("clip_large", "clip_base")


def tables(record: Record, published: Published) -> list[Table]:
    """One table that says what is missing."""
    lines = [(model, network) for model in MODELS for network in ("dense", "compressed")]
    rows = tuple((Cell(model), Cell(network), Cell("cannot be run yet"), Cell("unknown")) for model, network in lines)
    data = tuple({"model": m, "network": n, "latency_ms": None, "published_latency_ms": None} for m, n in lines)
    return [Table("table7", "Table 7: latency of CLIP", COLUMNS, rows, (LEGEND,), (), data)]
