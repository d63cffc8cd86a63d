"""MNLI of GLUE: does a sentence follow from another? Measured on both development sets."""

from spp.data.sentences.glue import GlueSet, opener

open_sentences = opener(
    GlueSet(
        "MNLI",
        (("premise", "sentence1"), ("hypothesis", "sentence2")),
        ("label", "gold_label"),
        ("entailment", "neutral", "contradiction"),
        ("matched", "mismatched"),
    )
)
