"""Sets of sentences in the forms that people have them in, and what is refused in one line."""

import io
import tarfile

import pyarrow
import pyarrow.parquet
import pytest

from spp.data.registry import fingerprint, open_sentences, read_data, sentence_sources


def opened(name, root=None, **values):
    config, runtime = read_data({"name": name, "root": None if root is None else str(root), "length": 32, **values}, "")
    return open_sentences(config.name, runtime)


def texts_and_classes(sentences, split):
    return [(row.texts, row.target) for row in sentences.rows[split]]


def write_table(folder, split, rows, header="text,label"):
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "own"
    write_table(folder, "train", ['"good, really",yes', "bad,no", "so so,no"])
    write_table(folder, "test", ["fine,yes", "poor,no"])
    return folder


def test_ones_own_csv(table):
    found = opened("table", table)
    assert texts_and_classes(found, "train") == [(("good, really",), "yes"), (("bad",), "no"), (("so so",), "no")]
    assert found.class_names == ("no", "yes")
    assert found.targets("test") == [1, 0]
    assert found.rows["test"][1].place == f"{table / 'test.csv'} line 3"


def test_pairs_columns_by_name_and_a_validation_of_its_own(tmp_path):
    for split in ("train", "validation", "test"):
        write_table(tmp_path, split, ["1,a b,c d,x", "2,e,f,y"], header="id,question,answer,kind")
    with pytest.raises(ValueError, match=r"^data.label_column: .*line 2 has no column 'label' or 'class' or 'target'"):
        opened("table", tmp_path)
    found = opened("table", tmp_path, text_columns=["question", "answer"], label_column="kind")
    assert texts_and_classes(found, "validation") == [(("a b", "c d"), "x"), (("e", "f"), "y")]


def test_sst2_as_tsv_and_as_parquet_is_one_set(tmp_path):
    tsv, parquet = tmp_path / "tsv", tmp_path / "parquet"
    rows = {"train": [('a "fine film', 1), ("a bore", 0)], "validation": [("good", 1), ("bad", 0)]}
    (tsv / "SST-2").mkdir(parents=True)
    (parquet / "sst2").mkdir(parents=True)
    for split, of_split in rows.items():
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in of_split)]
        (tsv / "SST-2" / f"{'dev' if split == 'validation' else split}.tsv").write_text("\n".join(lines))
        columns = {"sentence": [text for text, _ in of_split], "label": [label for _, label in of_split]}
        file = parquet / "sst2" / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    as_tsv, as_parquet = opened("sst2", tsv), opened("sst2", parquet / "sst2")
    assert texts_and_classes(as_tsv, "train") == [(('a "fine film',), "positive"), (("a bore",), "negative")]
    assert as_tsv.fingerprint() == as_parquet.fingerprint()
    assert as_tsv.targets("test") == [1, 0]


def test_qqp_pairs_by_the_columns_of_tsv(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    lines = ["1\t1\t2\thow?\thow so?\t1", "2\t3\t4\twho?\twhy?\t0"]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("\n".join([header, *lines]))
    found = opened("qqp", tmp_path)
    assert texts_and_classes(found, "test") == [
        (("how?", "how so?"), "duplicate"), (("who?", "why?"), "not_duplicate"),
    ]  # fmt: skip


def test_mnli_has_both_development_sets_as_parts_of_test(tmp_path):
    names = ["entailment", "neutral", "contradiction"]
    for stem, kinds in (("train", names), ("dev_matched", names), ("dev_mismatched", names[::-1])):
        lines = [f"{number}\tp{number}\th{number}\t{kind}" for number, kind in enumerate(kinds)]
        (tmp_path / f"{stem}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tgold_label", *lines]))
    found = opened("mnli", tmp_path)
    assert found.parts == ("matched", "mismatched")
    assert [row.part for row in found.rows["test"]] == [0, 0, 0, 1, 1, 1]
    assert found.targets("test") == [0, 1, 2, 2, 1, 0]


def test_cola_without_a_header_and_stsb_with_numbers(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("gj04\t1\t\tShe sleeps.\ngj04\t0\t*\tSleep she.\n")
    found = opened("cola", tmp_path)
    assert texts_and_classes(found, "train") == [(("She sleeps.",), "acceptable"), (("Sleep she.",), "unacceptable")]
    scales = tmp_path / "STS-B"
    scales.mkdir()
    for split in ("train", "dev"):
        (scales / f"{split}.tsv").write_text("index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.8\n1\tc\td\t0.5\n")
    scaled = opened("stsb", scales)
    assert scaled.class_names is None
    assert scaled.targets("train") == [3.8, 0.5]


def test_movies_come_out_of_the_source_archive(tmp_path):
    ratings = [2.5] * 60 + [-1.0] * 60 + [0.0] * 60
    lines = [f"{number}\t{rating}\tsentence {number}\r\n" for number, rating in enumerate(ratings)]

    def packed(name, content):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        return made.getvalue()

    inner = packed("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt", "".join(lines).encode())
    archive = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    archive.write_bytes(packed("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner))
    found = opened("movies", tmp_path)
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 110, "test": 10}
    both = {**dict(texts_and_classes(found, "train")), **dict(texts_and_classes(found, "test"))}
    assert both[("sentence 0",)] == "positive"
    assert both[("sentence 60",)] == "negative"
    assert ("sentence 120",) not in both
    assert {row.target for row in found.rows["train"][:10]} == {"positive", "negative"}  # in the file they are sorted
    archive.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"^data.root: .* does not hold movieReviewSnippets_GroundTruth.txt \(ReadErr"):
        opened("movies", tmp_path)


def test_help_topics_need_no_files_and_share_no_sentence():
    found = opened("helptopics")
    train, test = (dict(texts_and_classes(found, split)) for split in ("train", "test"))
    assert len(found.class_names) == 6
    assert len(train) > 1000
    assert not train.keys() & test.keys()
    assert {row.target for row in found.rows["train"][:100]} == set(found.class_names)


@pytest.mark.parametrize(
    ("split", "row", "line", "what"),
    [
        ("train", '" ",no', 5, "the text is empty"),
        ("test", ",no", 4, "the text is empty"),
        ("train", "new,maybe", 5, "class 'maybe' is in train and not in test"),
        ("test", "new,maybe", 4, "class 'maybe' is in test and not in train"),
        ("test", "new,", 4, "the class is empty"),
        ("test", "new", 4, "1 columns instead of 2"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line(table, split, row, line, what):
    with (table / f"{split}.csv").open("a") as file:
        file.write(f"{row}\n")
    with pytest.raises(ValueError, match=rf"^data.root: {table / split}.csv line {line}: {what}[^\n]*$"):
        opened("table", table)


def test_or_it_is_left_out_and_counted_when_asked(table):
    whole = opened("table", table).fingerprint()
    for split, row in (("train", " ,no"), ("train", "new,maybe"), ("test", "new,other")):
        with (table / f"{split}.csv").open("a") as file:
            file.write(f"{row}\n")
    found = opened("table", table, on_error="skip")
    assert dict(found.num_left_out) == {"empty texts": 1, "classes of one split alone": 2}
    told = found.fingerprint()
    assert told.pop("left_out") == dict(found.num_left_out)
    assert told == whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 3}, r"^data.length: 3 is not allowed; allowed: 8 or more"),
        ({"length": None}, r"^data.length: None is not allowed"),
        ({"on_error": "ignore"}, r"^data.on_error: 'ignore' is not allowed; allowed: fail, skip"),
        ({"text_columns": ["a", "b", "c"]}, r"^data.text_columns: "),
        (
            {"tokenizer": "package:not-there"},
            r"^data.tokenizer: the package 'not-there' is not installed",
        ),
        ({"tokenizer": "/nowhere"}, r"^data.tokenizer: '/nowhere' is no folder"),
    ],
)
def test_words_that_are_refused(table, values, message):
    with pytest.raises(ValueError, match=message):
        opened("table", table, **values)


@pytest.mark.parametrize("name", [name for name in sentence_sources() if name != "helptopics"])
def test_a_set_that_is_not_there_is_refused_by_its_folder(name, tmp_path):
    with pytest.raises(ValueError, match=r"^data.root: .* is no folder"):
        opened(name, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^data.root: .* has n[^\n]*$"):
        opened(name, tmp_path)


def test_the_first_rows_of_train_are_what_there_is(table):
    config, runtime = read_data({"name": "table", "root": str(table), "length": 32, "num_train": 2}, "")
    assert fingerprint(config, runtime)["splits"] == {"train": 2, "test": 2}
