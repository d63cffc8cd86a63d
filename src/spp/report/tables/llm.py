"""The LLM table: pruned Llama. Published numbers only, as this project prunes no language models yet."""

from spp.record.record import Record
from spp.report.published import Published
from spp.report.table import Table
from spp.report.tables import beside

REASON = (
    "This project cannot run it yet: it prunes no single weights of language models, so there is no command that fills "
    "these cells. Of the paper's table it is known only that at 50 % sparsity SPP is comparable to RIA on five data "
    "sets, calibrated on C4 and WikiText2."
)


def tables(record: Record, published: Published) -> list[Table]:
    """One table of published values."""
    return [beside.published_table("llm", "Language models at 50 % sparsity", published, REASON)]
