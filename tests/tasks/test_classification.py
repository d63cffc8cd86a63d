"""The first task, against formulas written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spp.data.facts import DataFacts
from spp.plan.recipes import UpdateConfig
from spp.tasks.classification import Classification

FACTS = DataFacts(name="toys", samples="images", num_classes=3)


@pytest.fixture
def task():
    return Classification(FACTS)


def recipe(**changes):
    return UpdateConfig(epochs=1, batch_size=4, **changes)


def test_data_without_classes_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^task.name: classification needs classes, and toys has none; [^\n]*$"):
        Classification(DataFacts(name="toys"))


def test_the_evaluator_counts_over_unequal_batches(task):
    evaluator = task.evaluator()
    scores = torch.tensor([[3.0, 1, 0], [0, 2, 1], [0, 1, 2], [9, 8, 7], [0, 0, 1]])
    labels = torch.tensor([0, 1, 0, 2, 2])
    for part in (slice(0, 4), slice(4, 5)):
        evaluator.update(scores[part], (None, labels[part]))
    values = evaluator.compute()
    assert evaluator.num_samples == 5
    assert values["top1"] == pytest.approx(100 * 3 / 5)
    assert values["top5"] == 100
    assert values["loss"] == pytest.approx(float(nn.functional.cross_entropy(scores, labels)))


def test_second_accuracy_is_of_the_first_five():
    task = Classification(DataFacts(name="toys", num_classes=8))
    scores = torch.arange(8.0).repeat(8, 1)
    evaluator = task.evaluator()
    evaluator.update(scores, (None, torch.arange(8)))
    assert evaluator.compute()["top5"] == pytest.approx(100 * 5 / 8)
    assert evaluator.compute()["top1"] == pytest.approx(100 / 8)


def test_the_record_says_unit_direction_count_and_what_is_counted(task):
    described = task.describe({"top1": 50.0, "top5": 100.0, "loss": 0.5}, 297)
    assert list(described) == ["top1", "top5", "loss"]
    assert described["top1"] == {
        "value": 50.0, "label": "top-1", "unit": "%", "better": "higher", "count": 297, "of": "images",
    }  # fmt: skip
    assert (described["loss"]["unit"], described["loss"]["better"]) == ("nats", "lower")


@pytest.mark.parametrize(
    ("value", "than", "is_better"), [(2, 1, True), (1, 1, False), (1, 2, False), (math.nan, 1, False)]
)
def test_directions(task, value, than, is_better):
    by_name = {metric.name: metric for metric in task.metrics}
    assert by_name["top1"].is_better(value, than) == is_better
    assert by_name["loss"].is_better(-value, -than) == is_better
    assert all(metric.is_better(0.0, metric.worst) for metric in task.metrics)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_training_loss_is_smoothed_cross_entropy(task, smoothing):
    scores, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = task.training_loss(recipe(label_smoothing=smoothing))
    target = (1 - smoothing) * nn.functional.one_hot(labels, 3) + smoothing / 3
    assert float(loss(scores, labels)) == pytest.approx(
        float(-(target * scores.log_softmax(1)).sum(1).mean()), rel=1e-5
    )


def test_noise_has_the_deviation_that_was_asked_for(task):
    images, labels = torch.zeros(4, 3, 64, 64), torch.zeros(4, dtype=torch.long)
    noisy, same = task.training_loss(recipe(input_noise=0.4)).prepare(images, labels)
    assert float(noisy.std()) == pytest.approx(0.4, rel=0.05)
    assert same is labels
    assert task.training_loss(recipe()).prepare(images, labels)[0] is images


def test_mixing_blends_the_images_of_a_batch_and_their_targets_alike(task):
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 8, 8).clone()
    labels = torch.tensor([0, 1, 2, 0])
    torch.manual_seed(0)
    mixed, targets = task.training_loss(recipe(mixup=0.8)).prepare(images.clone(), labels)
    share = float(mixed[0, 0].mean())
    assert 0 < share < 1
    expected = share * nn.functional.one_hot(labels, 3) + (1 - share) * nn.functional.one_hot(labels.flip(0), 3)
    torch.testing.assert_close(targets, expected, atol=1e-4, rtol=0)


def test_soft_distillation_is_a_divergence_at_a_temperature_and_hard_a_cross_entropy(task):
    scores, wanted = torch.randn(5, 3), torch.randn(5, 3)
    teacher, student = (values.div(2).softmax(1) for values in (wanted, scores))
    soft = 4 * (teacher * (teacher.log() - student.log())).sum(1).mean()
    assert float(task.distillation_loss(scores, wanted, 2.0, "soft")) == pytest.approx(float(soft), rel=1e-5)
    assert float(task.distillation_loss(wanted, wanted, 2.0, "soft")) == pytest.approx(0, abs=1e-6)
    hard = nn.functional.cross_entropy(scores, wanted.argmax(1))
    assert float(task.distillation_loss(scores, wanted, 2.0, "hard")) == pytest.approx(float(hard))
    task.check_distillation()


def test_outputs_of_another_width_are_refused(task):
    task.check_outputs(torch.zeros(2, 3), 2)
    for outputs in (torch.zeros(2, 4), torch.zeros(2, 3, 3), SimpleNamespace()):
        with pytest.raises(ValueError, match=r"^model: outputs of shape [^\n]* do not fit classification; [^\n]*$"):
            task.check_outputs(outputs, 2)
