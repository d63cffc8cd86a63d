"""Index packing and slicing against plain loops."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spp.structure import narrow

heads_of_masks = st.integers(1, 6).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=4)
)


@given(heads_of_masks)
def test_pack_lists_the_kept_channels_head_by_head(masks):
    width = len(masks[0])
    widest = max(map(sum, masks))
    expected = []
    for head, mask in enumerate(masks):
        channels = [head * width + unit for unit in range(width) if mask[unit]]
        expected += channels + [narrow.PADDING] * (widest - len(channels))
    assert narrow.pack([torch.tensor(mask).nonzero().flatten() for mask in masks], width).tolist() == expected


def test_rows_and_columns():
    linear = nn.Linear(3, 4)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    linear.weight.requires_grad_(False)
    index = torch.tensor([2, narrow.PADDING, 0])
    narrow.keep_rows(linear, index)
    assert torch.equal(linear.weight, torch.stack([weight[2], torch.zeros(3), weight[0]]))
    assert torch.equal(linear.bias, torch.stack([bias[2], torch.zeros(()), bias[0]]))
    narrow.keep_columns(linear, narrow.shift(torch.tensor([1, narrow.PADDING]), 1))
    assert torch.equal(linear.weight[:, 0], torch.stack([weight[2, 2], torch.zeros(()), weight[0, 2]]))
    assert torch.equal(linear.weight[:, 1], torch.zeros(3))
    assert (linear.in_features, linear.out_features) == (2, 3)
    assert not linear.weight.requires_grad
    assert linear.bias.requires_grad
    assert linear(torch.ones(1, 2)).shape == (1, 3)
