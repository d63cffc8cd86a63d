"""Retrieval: images and texts are embedded so that those that belong together have the largest products.

A batch is what spp.data.captions.module yields. Outputs of a network are {"images": (B, d), "texts": (T, d), "scale":
()}, embeddings of length 1 and the factor of their products; T are the captions of all B images, image after image.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.structure.inputs import Inputs
from spp.tasks.momentum import MomentumLoss
from spp.tasks.recall import recall
from spp.tasks.task import HIGHER, Batch, Evaluator, Metric, Task, TrainingLoss, gather_over_devices

KS = (1, 5, 10)
Outputs = Mapping[str, Tensor]


class Retrieval(Task):
    """Which caption belongs to an image, and which image to a caption."""

    name = "retrieval"
    metrics = (
        Metric("mean_recall", "mean recall", "%", HIGHER),
        *(Metric(f"i2t_r{k}", f"image-to-text R@{k}", "%", HIGHER) for k in KS),
        *(Metric(f"t2i_r{k}", f"text-to-image R@{k}", "%", HIGHER) for k in KS),
    )
    headline = "mean_recall"
    outputs = "embeddings"

    def inputs(self, batch: Batch) -> Inputs:
        return {"pixel_values": batch["pixel_values"], "input_ids": batch["input_ids"][batch["is_caption"]]}

    def targets(self, batch: Batch) -> Tensor:
        """The number of each sample's image, (B,)."""
        images: Tensor = batch["image"]
        return images

    def training_loss(self, recipe: Any) -> "ContrastiveLoss":
        for name in ("label_smoothing", "mixup", "cutmix"):
            value = getattr(recipe, name)
            if value:
                raise ValueError(f"{name}: {value} is not for retrieval; allowed: 0; leave it out")
        return ContrastiveLoss(recipe.input_noise)

    def momentum_loss(self, network: nn.Module, recipe: Any, steps_per_epoch: int) -> MomentumLoss:
        return MomentumLoss(self.training_loss(recipe), network, recipe, steps_per_epoch)

    def evaluator(self) -> "RecallEvaluator":
        return RecallEvaluator()

    def check_outputs(self, outputs: Any, num_samples: int) -> None:
        is_pair = isinstance(outputs, Mapping) and {"images", "texts", "scale"} <= set(outputs)
        if not is_pair or outputs["images"].ndim != 2 or len(outputs["images"]) != num_samples:
            raise ValueError(
                f"model: outputs of a {type(outputs).__name__} do not fit retrieval; allowed: embeddings of images and "
                "texts, and their scale; use a model of two towers, such as model=clip_micro"
            )

    def distillation_loss(self, outputs: Any, teacher_outputs: Any, temperature: float, kind: str) -> Tensor:
        """soft: KL(teacher || student) of which of the batch's texts belongs to an image, and the other way round, at
        the scales divided by the temperature; hard: cross entropy with the teacher's first choice."""
        losses = []
        for own, wanted in zip(_both_ways(outputs), _both_ways(teacher_outputs), strict=True):
            if kind == "hard":
                losses.append(F.cross_entropy(own, wanted.argmax(1)))
                continue
            student, teacher = (F.log_softmax(scores / temperature, dim=1) for scores in (own, wanted))
            losses.append(temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True))
        return torch.stack(losses).mean()


class ContrastiveLoss(TrainingLoss):
    """The symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3) over the batch of all devices.

    Every sample is compared with all texts, and all images, of the batch, those of other devices included. Where
    several samples of a batch have one image, each is right for the others: targets are shared among them evenly, as
    ALBEF and UPop do. Its mean over the devices, and that of the gradients, is that of one device with the whole batch.

    Args:
        input_noise: deviation of Gaussian noise on the images.
    """

    def __init__(self, input_noise: float) -> None:
        self.input_noise = input_noise

    def prepare(self, inputs: Inputs, targets: Any) -> tuple[Inputs, Any]:
        if self.input_noise:
            assert isinstance(inputs, Mapping)
            pixels = inputs["pixel_values"]
            inputs = {**inputs, "pixel_values": pixels + self.input_noise * torch.randn_like(pixels)}
        return inputs, targets

    def __call__(self, outputs: Outputs, targets: Tensor) -> Tensor:
        is_own = (targets[:, None] == gather_over_devices(targets)[None]).float()
        shares = is_own / is_own.sum(1, keepdim=True)
        return torch.stack([F.cross_entropy(scores, shares) for scores in _both_ways(outputs)]).mean()


def _both_ways(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Scores of the images here and the texts of all devices, and of the texts here and all images, in fp32."""
    images, texts = outputs["images"].float(), outputs["texts"].float()
    all_images, all_texts = _gather_with_gradients(images), _gather_with_gradients(texts)
    scale = outputs["scale"].float()
    return scale * images @ all_texts.T, scale * texts @ all_images.T


def _gather_with_gradients(rows: Tensor) -> Tensor:
    """As `gather_over_devices`, of equally many rows; gradients come back to the devices that the rows are from."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows))  # type: ignore[no-untyped-call]


class RecallEvaluator(Evaluator):
    """Keeps the embeddings of the whole gallery, on the CPU, and ranks them in the end."""

    def __init__(self) -> None:
        super().__init__()
        self._images: list[Tensor] = []
        self._texts: list[Tensor] = []
        self._owners: list[Tensor] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        is_caption = batch["is_caption"]
        places = torch.arange(len(is_caption), device=is_caption.device)[:, None].expand_as(is_caption)
        self._owners.append(places[is_caption].cpu() + self.num_samples)
        self._images.append(outputs["images"].float().cpu())
        self._texts.append(outputs["texts"].float().cpu())
        self.num_samples += len(is_caption)

    def compute(self) -> dict[str, float]:
        images, texts, owners = (torch.cat(parts) for parts in (self._images, self._texts, self._owners))
        device = _device_of_processes()
        counts = gather_over_devices(torch.tensor([[len(images), len(texts)]], device=device))
        # The images of a device stand behind those of the ones before it.
        first_images = (counts[:, 0].cumsum(0) - counts[:, 0]).repeat_interleave(counts[:, 1])
        images, texts, owners = (gather_over_devices(part.to(device)) for part in (images, texts, owners))
        values = recall(images, texts, owners + first_images, KS)
        return {"mean_recall": sum(values.values()) / len(values), **values}


def _device_of_processes() -> torch.device:
    """Where tensors must be to be gathered: on the GPU with NCCL."""
    is_nccl = (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_backend() == "nccl"
    )
    return torch.device("cuda", torch.cuda.current_device()) if is_nccl else torch.device("cpu")


TASK = Retrieval
"""Which task a network is for."""
