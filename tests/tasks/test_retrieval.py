"""The task of retrieval: its loss against a loop and over two processes, its metrics against a brute force."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from spp.data.facts import DataFacts
from spp.plan.recipes import PassConfig
from spp.tasks.retrieval import ContrastiveLoss, Retrieval

TASK = Retrieval(DataFacts(name="pictures", samples="images with captions"))


def outputs_of(seed=0, num=6, width=5):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2 * num, width, generator=generator)
    images, texts = F.normalize(rows, dim=1).split(num)
    return {"images": images.clone(), "texts": texts.clone(), "scale": torch.tensor(3.0)}


def loss_by_loop(outputs, owners):
    """Cross entropies written out, number by number."""
    images, texts, scale = (outputs[name].double() for name in ("images", "texts", "scale"))
    total = 0.0
    for queries, gallery in ((images, texts), (texts, images)):
        for row, query in enumerate(queries):
            scores = [float(scale * query @ other) for other in gallery]
            norm = math.log(sum(math.exp(score) for score in scores))
            right = [place for place, owner in enumerate(owners) if owner == owners[row]]
            total += sum(norm - scores[place] for place in right) / len(right) / len(queries)
    return total / 2


@pytest.mark.parametrize("owners", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 2, 2, 2]])
def test_the_loss_is_the_symmetric_cross_entropy(owners):
    outputs = outputs_of()
    assert float(ContrastiveLoss(0.0)(outputs, torch.tensor(owners))) == pytest.approx(loss_by_loop(outputs, owners))


def _one_rank(rank, folder):
    """A process of two: half of the batch, gradients averaged as DDP does."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    outputs, owners = outputs_of(), torch.tensor([0, 1, 0, 2, 2, 3])
    weight = torch.eye(5, requires_grad=True)
    mine = slice(3 * rank, 3 * rank + 3)
    scale = outputs["scale"].requires_grad_()
    own = {"images": outputs["images"][mine] @ weight, "texts": outputs["texts"][mine] @ weight.T, "scale": scale}
    loss = ContrastiveLoss(0.0)(own, owners[mine])
    loss.backward()
    for value in (loss.detach_(), weight.grad, scale.grad):
        torch.distributed.all_reduce(value)
        value /= 2
    evaluator = TASK.evaluator()
    evaluator.update(
        {name: outputs[name][mine] if name != "scale" else scale for name in outputs}, _batch(owners[mine])
    )
    if rank == 0:
        values = evaluator.compute()
        torch.save((loss, weight.grad, scale.grad, values), f"{folder}/found.pt")
    else:
        evaluator.compute()
    torch.distributed.destroy_process_group()


def _batch(owners):
    return {"is_caption": torch.ones(len(owners), 1, dtype=torch.bool), "image": owners}


def test_two_processes_have_the_loss_the_gradient_and_the_recalls_of_one(tmp_path):
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    loss, gradient, scale_gradient, recalls = torch.load(tmp_path / "found.pt")
    outputs, owners = outputs_of(), torch.tensor([0, 1, 0, 2, 2, 3])
    weight = torch.eye(5, requires_grad=True)
    scale = outputs["scale"].requires_grad_()
    own = {"images": outputs["images"] @ weight, "texts": outputs["texts"] @ weight.T, "scale": scale}
    expected = ContrastiveLoss(0.0)(own, owners)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, weight.grad)
    torch.testing.assert_close(scale_gradient, scale.grad)
    evaluator = TASK.evaluator()
    evaluator.update(outputs, _batch(owners))
    assert recalls == pytest.approx(evaluator.compute())


def test_recalls_are_over_all_batches_and_all_captions():
    generator = torch.Generator().manual_seed(3)
    images = F.normalize(torch.randn(7, 4, generator=generator), dim=1)
    is_caption = torch.tensor([[True, True, True], [True, False, False], *[[True, True, False]] * 5])
    owners = [row for row, flags in enumerate(is_caption.tolist()) for flag in flags if flag]
    texts = F.normalize(torch.randn(len(owners), 4, generator=generator), dim=1)
    evaluator = TASK.evaluator()
    for rows in (slice(0, 3), slice(3, 7)):
        mine = [place for place, owner in enumerate(owners) if rows.start <= owner < rows.stop]
        outputs = {"images": images[rows], "texts": texts[mine], "scale": torch.tensor(1.0)}
        evaluator.update(outputs, {"is_caption": is_caption[rows]})
    values = evaluator.compute()
    scores = images @ texts.T
    for k in (1, 5, 10):
        found = [set(scores[row].topk(min(k, len(owners))).indices.tolist()) for row in range(7)]
        i2t = sum(any(owners[place] == row for place in best) for row, best in enumerate(found)) / 7
        t2i = sum(owners[t] in scores[:, t].topk(min(k, 7)).indices for t in range(len(owners))) / len(owners)
        assert values[f"i2t_r{k}"] == pytest.approx(100 * i2t)
        assert values[f"t2i_r{k}"] == pytest.approx(100 * t2i)
    assert values["mean_recall"] == pytest.approx(
        sum(values[name] for name in values if "_r" in name and name != "mean_recall") / 6
    )
    assert evaluator.num_samples == 7


def test_the_network_is_called_with_the_captions_that_there_are():
    batch = {
        "pixel_values": torch.zeros(2, 1, 4, 4),
        "input_ids": torch.arange(12).view(2, 2, 3),
        "is_caption": torch.tensor([[True, False], [True, True]]),
        "image": torch.tensor([4, 9]),
    }
    inputs = TASK.inputs(batch)
    assert inputs["input_ids"].tolist() == [[0, 1, 2], [6, 7, 8], [9, 10, 11]]
    assert TASK.targets(batch).tolist() == [4, 9]


def test_distances_to_a_teacher_vanish_at_the_teacher():
    own, teacher = outputs_of(0), outputs_of(1)
    assert float(TASK.distillation_loss(teacher, teacher, 2.0, "soft")) == pytest.approx(0.0, abs=1e-6)
    assert float(TASK.distillation_loss(own, teacher, 2.0, "soft")) > 0.01


def test_what_is_of_classes_is_refused():
    recipe = PassConfig(epochs=1, batch_size=4, mixup=0.5)
    with pytest.raises(ValueError, match=r"mixup: 0.5 is not for retrieval; allowed: 0"):
        TASK.training_loss(recipe)
    with pytest.raises(ValueError, match=r"outputs of a Tensor do not fit retrieval"):
        TASK.check_outputs(torch.zeros(2, 10), 2)


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), sys.argv[2])
