"""STS-B of GLUE: how alike are two sentences, from 0 to 5? Needs task=regression; its metrics are correlations."""

from spp.data.sentences.glue import GlueSet, opener

open_sentences = opener(GlueSet("STS-B", (("sentence1",), ("sentence2",)), ("label", "score")))
