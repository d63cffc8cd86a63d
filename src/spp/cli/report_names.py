"""What `spp report` can be asked for."""

REPORTS = (
    *("table1", "retrieval", "llm", "cifar10", "table6", "table7", "table8"),
    *("cost", "stability", "figure1", "figure2", "family", "compare"),
)
FORMATS = ("md", "csv", "tex", "png", "pdf", "html")
