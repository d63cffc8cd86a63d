"""CoLA of GLUE: is a sentence English? Its metric is Matthews' correlation."""

from spp.data.sentences.glue import GlueSet, opener

open_sentences = opener(
    GlueSet(
        "CoLA",
        (("sentence",),),
        class_names=("unacceptable", "acceptable"),
        tsv_header=("source", "label", "mark", "sentence"),
    )
)
