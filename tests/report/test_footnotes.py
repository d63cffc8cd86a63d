from spp.report.footnotes import Footnotes, differences
from spp.report.published import load_published

PUBLISHED = load_published()


def test_equal_sentences_have_one_letter():
    notes = Footnotes()
    assert notes.marks(["x", "y"]) == "ab"
    assert notes.marks(["z", "y"]) == "bc"
    assert notes.legend() == ("a: x.", "b: y.", "c: z.")


def test_the_papers_own_recipe_differs_in_nothing(make_row):
    assert differences([make_row(model="deit_small", data="imagenet")], PUBLISHED) == []


def test_a_rival_is_held_against_its_own_epochs(make_row):
    row = make_row(model="deit_small", data="imagenet", method="upop", epochs_search=40, batch_size=1)
    assert differences([row], PUBLISHED) == ["searched 40 epochs, the paper 60"]


def test_a_model_that_the_paper_has_not_has_no_recipe(make_row):
    assert differences([make_row(model="vit_micro", lr=1.0)], PUBLISHED) == []
