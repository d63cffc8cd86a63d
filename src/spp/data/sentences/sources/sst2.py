"""SST-2 of GLUE: sentences of movie reviews, for or against."""

from spp.data.sentences.glue import GlueSet, opener

open_sentences = opener(GlueSet("SST-2", (("sentence",),), class_names=("negative", "positive")))
