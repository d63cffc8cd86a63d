"""What texts are measured by, against formulas written out."""

from types import SimpleNamespace

import pytest
import torch

from spp.data.facts import DataFacts
from spp.plan.recipes import UpdateConfig
from spp.tasks.classification import TASK, Classification
from spp.tasks.regression import Regression


def text_facts(num_classes=2, **changes):
    return DataFacts(name="texts", samples="texts", num_classes=num_classes, are_texts=True, **changes)


def measured(task, scores, labels, parts=None, sizes=(3, 4, 5)):
    evaluator = task.evaluator()
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        evaluator.update(scores[rows], (None, labels[rows], *(() if parts is None else (parts[rows],))))
        start += size
    return evaluator.compute(), evaluator.num_samples


def one_hot(classes, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(classes), num_classes).float()


def test_images_keep_their_metrics_and_texts_have_those_of_glue():
    assert type(TASK(DataFacts(name="images", num_classes=3))) is Classification
    task = TASK(text_facts())
    assert task.name == "classification"
    assert [metric.name for metric in task.metrics] == ["accuracy", "f1", "matthews", "loss", "kl", "agreement"]
    assert task.headline_metric.label == "accuracy"


def test_two_classes_by_the_counts_of_right_and_wrong():
    labels = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    said = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    values, count = measured(TASK(text_facts()), one_hot(said, 2), labels)
    hits, missed, false, right = 3, 2, 1, 6
    assert count == 12
    assert values["accuracy"] == pytest.approx(100 * 9 / 12)
    assert values["f1"] == pytest.approx(100 * 2 * hits / (2 * hits + missed + false))
    top = hits * right - false * missed
    below = ((hits + false) * (hits + missed) * (right + false) * (right + missed)) ** 0.5
    assert values["matthews"] == pytest.approx(top / below)


def test_f1_of_three_classes_is_their_mean():
    labels, said = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 0]
    values, _ = measured(TASK(text_facts(3)), one_hot(said, 3), torch.tensor(labels))
    scores = []
    for each in range(3):
        hits = sum(a == b == each for a, b in zip(labels, said, strict=True))
        scores.append(2 * hits / (labels.count(each) + said.count(each)))
    assert values["f1"] == pytest.approx(100 * sum(scores) / 3)


def test_one_answer_for_everything_has_no_correlation():
    values, _ = measured(TASK(text_facts()), one_hot([1] * 12, 2), torch.tensor([0, 1] * 6))
    assert values["matthews"] == 0
    numbers = torch.arange(12.0)
    constant, _ = measured(Regression(text_facts(None)), torch.ones(12, 1), numbers)
    assert (constant["pearson"], constant["spearman"]) == (0, 0)


def test_parts_of_a_test_set_are_told_apart():
    task = TASK(text_facts(parts=("matched", "mismatched")))
    labels, parts = torch.tensor([0, 1] * 6), torch.tensor([0] * 5 + [1] * 7)
    said = [0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    values, count = measured(task, one_hot(said, 2), labels, parts)
    right = [a == b for a, b in zip(labels.tolist(), said, strict=True)]
    assert count == 5
    assert values["accuracy"] == pytest.approx(100 * sum(right[:5]) / 5)
    assert values["accuracy_mismatched"] == pytest.approx(100 * sum(right[5:]) / 7)
    told = task.describe(values, count)["accuracy_mismatched"]
    assert (told["label"], told["unit"]) == ("accuracy (mismatched)", "%")
    whole, num = measured(task, one_hot(said, 2), labels)  # validation has no parts
    assert num == 12
    assert "accuracy_mismatched" not in whole


def test_correlations_by_their_formulas_and_by_ranks():
    scores = torch.tensor([0.1, 0.5, 0.2, 0.9, 1.4, 1.1, 2.0, 1.9, 2.2, 2.6, 9.0, 3.0])
    numbers = torch.tensor([0.0, 1.0, 0.5, 1.5, 2.0, 2.5, 2.2, 3.0, 3.5, 4.0, 5.0, 4.5])
    values, count = measured(Regression(text_facts(None)), scores[:, None], numbers)

    def correlation(a, b):
        a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
        return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())

    def ranks(values):
        return values.argsort().argsort()

    assert count == 12
    assert values["pearson"] == pytest.approx(correlation(scores, numbers), abs=1e-5)
    assert values["spearman"] == pytest.approx(correlation(ranks(scores), ranks(numbers)), abs=1e-5)
    assert values["mse"] == pytest.approx(float((scores - numbers).square().mean()), rel=1e-5)


def recipe(**changes):
    return UpdateConfig(epochs=1, batch_size=4, **changes)


@pytest.mark.parametrize("name", ["mixup", "cutmix", "input_noise"])
def test_what_is_done_to_pixels_is_refused(name):
    for task in (TASK(text_facts()), Regression(text_facts(None))):
        with pytest.raises(ValueError, match=rf"^{name}: 0\.5 is not for text; allowed: 0"):
            task.training_loss(recipe(**{name: 0.5}))


def test_losses_and_what_data_a_task_is_for():
    outputs, numbers = torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 3.0])
    task = Regression(text_facts(None))
    assert float(task.training_loss(recipe())(outputs, numbers)) == pytest.approx(0.5)
    assert float(task.distillation_loss(outputs, outputs + 2, 1.0, "soft")) == pytest.approx(4.0)
    with pytest.raises(ValueError, match=r"^task.name: regression needs numbers, and texts has classes"):
        Regression(text_facts())
    with pytest.raises(ValueError, match=r"^task.name: classification needs classes, and texts has none"):
        TASK(text_facts(None))
    with pytest.raises(ValueError, match=r"^label_smoothing: 0\.1 is for classes"):
        task.training_loss(SimpleNamespace(mixup=0, cutmix=0, input_noise=0, label_smoothing=0.1))
