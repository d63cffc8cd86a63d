"""Networks that another module holds, and wrappers of torch."""

import pytest
import torch
from torch import nn

from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, set_drop_path, unit_weights
from spp.structure.masked import MaskedModel


class Wrapper(nn.Module):
    """A network behind a module of one's own, with a head behind it."""

    def __init__(self, backbone):
        super().__init__()
        self.parts = nn.ModuleDict({"backbone": backbone})
        self.head = nn.Linear(5, 3)

    def forward(self, pictures):
        return self.head(self.parts["backbone"](pictures))


@pytest.mark.parametrize("name", ["deit", "swin_shifted"])
def test_a_held_network_is_pruned_as_it_is_alone(build, random_masks, images, name):
    inner = build(name)
    outer = Wrapper(inner).eval()
    alone, held = find_pairs(inner), find_pairs(outer)
    assert [pair.name for pair in held] == [f"parts.backbone.{pair.name}" for pair in alone]
    assert [(p.size, p.params_per_unit, p.macs_per_unit) for p in held] == [
        (p.size, p.params_per_unit, p.macs_per_unit) for p in alone
    ]
    assert held[0].model_cost.params == alone[0].model_cost.params + 18
    assert sum(w.parameter.numel() for w in unit_weights(outer, held[0])) > 0

    masks = random_masks(held, 0)
    masked = MaskedModel(outer, held)
    masked.set_masks(masks)
    small = compact(outer, masks)
    batch = images(inner)
    with torch.no_grad():
        torch.testing.assert_close(small(batch), masked(batch), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(outer.head(compact(inner, random_masks(alone, 0))(batch)), small(batch))
    rebuilt = shrink_like(outer, widths_of(masks, held))
    assert {n: v.shape for n, v in rebuilt.state_dict().items()} == {n: v.shape for n, v in small.state_dict().items()}


def test_an_example_of_ones_own_is_what_the_cost_is_counted_with(build):
    outer = Wrapper(build("deit"))
    whole = find_pairs(outer)[0].model_cost
    twice = find_pairs(outer, example=torch.zeros(2, 3, 16, 16))[0].model_cost
    assert twice == whole
    assert count_cost(outer, {"pictures": torch.zeros(2, 3, 16, 16)}) == whole


def test_several_networks_in_one_are_refused_by_name(build):
    two = nn.ModuleDict({"left": build("deit"), "right": build("deit")})
    with pytest.raises(
        ValueError, match=r"^model: ModuleDict is not allowed: it holds several networks \(left, right\)[^\n]*$"
    ):
        find_pairs(two)


def test_wrappers_of_torch_are_taken_off(build, random_masks, images):
    model = build("deit")
    parallel = nn.DataParallel(model)
    assert [pair.name for pair in find_pairs(parallel)] == [pair.name for pair in find_pairs(model)]
    masks = random_masks(find_pairs(parallel), 0)
    small = compact(parallel, masks)
    assert type(small) is type(model)
    assert MaskedModel(parallel, find_pairs(parallel)).model is model


def test_a_compiled_network_is_masked_and_not_silently_dense(build, random_masks, images):
    model = build("deit")
    batch, masks = images(model), random_masks(find_pairs(model), 0)
    reference = MaskedModel(model, find_pairs(model))
    reference.set_masks(masks)
    compiled = torch.compile(model, backend="eager")
    holder = Wrapper(torch.compile(model, backend="eager")).eval()
    pairs = find_pairs(holder)
    inside = MaskedModel(holder, pairs)
    inside.set_masks({pair.name: masks[name] for pair, name in zip(pairs, masks, strict=True)})
    with torch.no_grad():
        compiled(batch)  # compiled before there are masks
        holder(batch)
        masked = MaskedModel(compiled, find_pairs(compiled))
        masked.set_masks(masks)
        torch.testing.assert_close(masked(batch), reference(batch))
        torch.testing.assert_close(inside(batch), holder.head(reference(batch)))


@pytest.mark.parametrize("name", ["deit", "swin_shifted"])
def test_stochastic_depth_is_what_timm_builds(build, name):
    built, set_later = build(name, drop_path_rate=0.3), build(name, drop_path_rate=0.7)
    set_drop_path(set_later, 0.3)
    assert str(set_later) == str(built)
    set_drop_path(set_later, 0.0)
    assert str(set_later) == str(build(name, drop_path_rate=0.0))


def test_example_inputs_are_by_the_names_of_the_forward(build):
    model = build("deit")
    assert model(**example_inputs(model)).shape == (1, 5)
