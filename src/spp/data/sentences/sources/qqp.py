"""QQP of GLUE: do two questions of Quora ask the same?"""

from spp.data.sentences.glue import GlueSet, opener

open_sentences = opener(
    GlueSet(
        "QQP", (("question1",), ("question2",)), ("label", "is_duplicate"), class_names=("not_duplicate", "duplicate")
    )
)
