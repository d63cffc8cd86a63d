import math

import pytest
import torch
from torch import nn

from spp.data.images.module import ImageData
from spp.plan.config import RuntimeConfig
from spp.plan.recipes import RecipeConfig, UpdateConfig
from spp.stages.evaluation import evaluate
from spp.stages.interruption import Interruptions
from spp.stages.ranks import Ranks
from spp.stages.training import TrainingPass, WeightTraining, fit
from spp.tasks.classification import Classification

CPU = RuntimeConfig(accelerator="cpu")


class Record:
    """Stands where a stage's run stands: keeps the rows, knows the runtime."""

    runtime, ranks, saved, kind = CPU, Ranks(), None, "finetune"

    def __init__(self, folder):
        self.artifacts, self.rows, self.steps = folder, [], []
        self.interruptions = Interruptions()

    def is_superseded(self, about_to_write):
        return False

    def leave_to_leader(self):
        pass

    progress_is_due = True

    def log(self, row):
        self.rows.append(row)

    def progress(self, done, total, unit, message=""):
        self.steps.append((done, total))


def digits(batch_size=64):
    return ImageData(
        name="digits",
        root=None,
        img_size=8,
        batch_size=batch_size,
        val_fraction=0.1,
        split_seed=0,
        seed=0,
        augment={},
        num_workers=0,
    )


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def value_of(model, data, record):
    """Top-1 on the validation split."""
    return evaluate(model, data.val_dataloader(), Classification(data.facts), record)["top1"]["value"]


def train(tmp_path, **changes):
    recipe = RecipeConfig(**{"epochs": 3, "batch_size": 64, "lr": 1e-2, **changes})
    data, record = digits(), Record(tmp_path)
    module = WeightTraining(network(), recipe, Classification(data.facts), recipe.epochs * data.steps_per_epoch, record)
    fit(module, data, record)
    return module, record, data


def test_learning_rate_follows_warm_up_and_cosine(tmp_path):
    rates = []

    class Watched(WeightTraining):
        def optimizer_step(self, epoch, batch_idx, optimizer, closure):
            rates.append(optimizer.param_groups[0]["lr"])
            super().optimizer_step(epoch, batch_idx, optimizer, closure)

    recipe = RecipeConfig(epochs=3, batch_size=64, lr=1e-2, min_lr=1e-4, warmup_epochs=1)
    data, record = digits(), Record(tmp_path)
    per_epoch = data.steps_per_epoch
    fit(Watched(network(), recipe, Classification(data.facts), 3 * per_epoch, record), data, record)
    warm = [1e-6 + (1e-2 - 1e-6) * step / per_epoch for step in range(per_epoch)]
    cold = [
        1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * step / (2 * per_epoch))) / 2 for step in range(2 * per_epoch)
    ]
    assert rates == pytest.approx(warm + cold)


def test_the_best_epoch_is_kept_or_the_last(tmp_path):
    best, record, data = train(tmp_path, select="best", lr=0.5)
    accuracies = [row["val_top1"] for row in record.rows]
    assert len(accuracies) == 3
    model = network()
    model.load_state_dict(best.kept)
    assert value_of(model, data, record) == pytest.approx(max(accuracies))
    last, record, data = train(tmp_path, select="last", lr=0.5)
    model.load_state_dict(last.kept)
    assert value_of(model, data, record) == pytest.approx(record.rows[-1]["val_top1"])


def test_the_moving_average_is_what_counts(tmp_path):
    """Averaged here in one line per step beside the training."""
    averages = []

    class Watched(WeightTraining):
        def on_train_batch_end(self, *arguments):
            super().on_train_batch_end(*arguments)
            weights = self.model[1].weight.detach().clone()
            averages.append(weights if not averages else 0.9 * averages[-1] + 0.1 * weights)

    recipe = RecipeConfig(epochs=1, batch_size=64, lr=1e-2, ema_decay=0.9, select="last")
    data, record = digits(), Record(tmp_path)
    module = Watched(network(), recipe, Classification(data.facts), data.steps_per_epoch, record)
    averages.append(module.model[1].weight.detach().clone())
    fit(module, data, record)
    assert torch.allclose(module.kept["1.weight"], averages[-1], atol=1e-6)
    assert not torch.allclose(module.kept["1.weight"], module.model[1].weight, atol=1e-4)


def test_mixup_smoothing_noise_and_clipping_train(tmp_path):
    _, record, data = train(
        tmp_path, mixup=0.4, cutmix=0.5, label_smoothing=0.1, input_noise=0.2, clip_grad=1.0, epochs=6
    )
    assert record.steps[-1] == (6 * data.steps_per_epoch,) * 2
    assert max(row["val_top1"] for row in record.rows) > 60


def test_clipping_in_mixed_precision_trains(tmp_path):
    _, record, data = train(tmp_path, clip_grad=1.0, precision="bf16-mixed", epochs=2)
    assert record.steps[-1] == (2 * data.steps_per_epoch,) * 2


def test_evaluation_counts_every_image_once(tmp_path):
    data, record = digits(batch_size=64), Record(tmp_path)
    model = network()
    with torch.inference_mode():
        right, among_five, loss, num = 0, 0, 0.0, 0
        for images, labels in data.test_dataloader():
            scores = model(images)
            right += int((scores.argmax(1) == labels).sum())
            among_five += sum(int(label) in row.argsort()[-5:] for row, label in zip(scores, labels, strict=True))
            loss += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
            num += len(labels)
    result = evaluate(model, data.test_dataloader(), Classification(data.facts), record)
    expected = {"top1": 100 * right / num, "top5": 100 * among_five / num, "loss": loss / num}
    assert {name: metric["value"] for name, metric in result.items()} == pytest.approx(expected)
    assert {metric["count"] for metric in result.values()} == {297}


def test_a_teacher_pulls_the_outputs_to_its_own(tmp_path):
    """With the whole weight on the teacher the labels play no part, and the student ends up as it."""
    data, record = digits(), Record(tmp_path)
    teacher = train(tmp_path, epochs=2)[0].model.requires_grad_(False).eval()
    recipe = RecipeConfig(epochs=4, batch_size=64, lr=1e-2, distill_weight=1.0, distill_temperature=2.0, select="last")
    task, distances = Classification(data.facts), []
    batch = next(iter(data.val_dataloader()))[0]

    class Watched(WeightTraining):
        def on_train_epoch_end(self):
            super().on_train_epoch_end()
            with torch.no_grad():
                distances.append(float(task.distillation_loss(self.model(batch), teacher(batch), 1.0, "soft")))

    torch.manual_seed(1)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    module = Watched(student, recipe, task, 4 * data.steps_per_epoch, record, teacher)
    before = float(task.distillation_loss(student(batch), teacher(batch), 1.0, "soft").detach())
    frozen = [value.clone() for value in teacher.state_dict().values()]
    fit(module, data, record)
    assert distances[-1] < 0.2 * before
    assert all(torch.equal(value, old) for value, old in zip(teacher.state_dict().values(), frozen, strict=True))
    assert not any("teacher" in name for name in module.state_dict())


def test_a_pass_without_weights_to_train_takes_a_recipe_without_step_sizes(tmp_path):
    class Frozen(TrainingPass):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    data, record = digits(), Record(tmp_path)
    model = network()
    before = model[1].weight.detach().clone()
    recipe = UpdateConfig(epochs=2, batch_size=64, label_smoothing=0.1)
    fit(Frozen(model, recipe, Classification(data.facts), 2 * data.steps_per_epoch, record), data, record)
    assert torch.equal(model[1].weight, before)
    assert [row["epoch"] for row in record.rows] == [1, 2]
    assert record.steps[-1] == (2 * data.steps_per_epoch,) * 2
