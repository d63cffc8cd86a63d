"""A Linear whose weight a hook computes anew cannot be cut, and is refused by its name."""

import pytest
import timm
import torch
from torch.nn.utils import parametrizations, prune

from spp.structure.find import find_pairs

CHANGES = {
    "prune": lambda linear: prune.l1_unstructured(linear, "weight", 0.3),
    "prune of the bias": lambda linear: prune.l1_unstructured(linear, "bias", 0.3),
    "weight_norm": torch.nn.utils.weight_norm,
    "spectral_norm": torch.nn.utils.spectral_norm,
    "parametrized": parametrizations.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("part", ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"])
@pytest.mark.parametrize("change", CHANGES)
def test_it_is_named(change, part):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=5
    )
    CHANGES[change](model.get_submodule(f"blocks.0.{part}"))
    with pytest.raises(ValueError, match=rf"^model: [^\n]*blocks\.0\.{part}[^\n]*$"):
        find_pairs(model)


def test_what_was_made_plain_again_is_taken():
    model = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    linear = model.blocks[0].mlp.fc1
    prune.l1_unstructured(linear, "weight", 0.3)
    prune.remove(linear, "weight")
    assert len(find_pairs(model)) == 3
