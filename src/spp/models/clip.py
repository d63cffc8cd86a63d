"""CLIP of Hugging Face as a task calls it: images and texts in, their embeddings and the temperature out."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from spp.models.config import ModelConfig
from spp.text import reason_of

MAX_LOGIT_SCALE = math.log(100)
"""Where CLIP cuts the logarithm of its scale (Radford et al. 2021, section 2.5)."""
PROJECTION_DIM = 512
"""Width of the embeddings where model.kwargs does not say it, as in transformers."""


class ClipEncoders(CLIPModel):  # type: ignore[misc]
    """CLIPModel, with its names of weights, that puts out what training and recall need and no product of the two.

    Images and texts may be of different numbers.
    """

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Embeddings of length 1, and the factor of their products.

        Args:
            pixel_values: (images, channels, height, width).
            input_ids: (texts, length); each has the token of the end.
            attention_mask: (texts, length), 0 where a text is padded. It changes nothing of what is put out as long as
                padding is behind the end, which a causal tower does not see.

        Returns:
            "images" (images, d), "texts" (texts, d), "scale" ().
        """
        if self.training:
            with torch.no_grad():
                self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        images = self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)
        texts = self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return {
            "images": F.normalize(images, dim=-1),
            "texts": F.normalize(self.text_projection(texts), dim=-1),
            "scale": self.logit_scale.exp(),
        }


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> ClipEncoders:
    """The network, freshly initialised; the default device decides where.

    Args:
        config: sizes in kwargs: `vision` and `text` as CLIPVisionConfig and CLIPTextConfig have them, projection_dim.
        inputs: what the data ask for: img_size, in_chans, vocab_size, length and the numbers of the special tokens.
        num_outputs: not used: the width of the embeddings is projection_dim.
        runtime: not used: weights are loaded into it afterwards.

    Raises:
        ValueError: one line, if sizes contradict the data, or transformers refuses them.
    """
    vision, text = (_tower(config.kwargs, name, inputs) for name in ("vision", "text"))
    arguments = {name: value for name, value in config.kwargs.items() if name not in ("vision", "text")}
    try:
        return ClipEncoders(CLIPConfig(vision_config=vision, text_config=text, **arguments))
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"model.kwargs: {config.kwargs} do not fit {config.name} ({reason}); allowed: the arguments of CLIPConfig "
            "in transformers; correct model.kwargs"
        ) from None


_GIVEN = {
    "vision": {"img_size": "image_size", "in_chans": "num_channels"},
    "text": {
        "vocab_size": "vocab_size",
        "length": "max_position_embeddings",
        "first_token": "bos_token_id",
        "last_token": "eos_token_id",
        "padding_token": "pad_token_id",
    },
}
"""What the data say, and what CLIPVisionConfig and CLIPTextConfig call it."""


def _tower(kwargs: Mapping[str, Any], tower: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: inputs[own] for own, name in _GIVEN[tower].items() if own in inputs}
    asked = dict(kwargs.get(tower, {}))
    for name, value in given.items():
        if asked.get(name, value) != value:
            raise ValueError(
                f"model.kwargs.{tower}.{name}: {asked[name]!r} contradicts the data, for which it is {value!r}; "
                f"allowed: {value!r}; leave it out, or set it by the data"
            )
    return {**given, **asked, "projection_dim": kwargs.get("projection_dim", PROJECTION_DIM)}
