"""Exact counts, whatever the scores are; the reference is a stable sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spp.sparsity.pattern import Pattern, keep_largest, kth_smallest, num_removed


def mask_by_sorting(scores, num):
    """Remove the first `num` of a stable ascending sort of a flat tensor."""
    mask = torch.ones(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().sort(stable=True).indices[:num]] = False
    return mask.view(scores.shape)


def reference(score, pattern):
    if pattern.ratio is not None:
        keep, of = pattern.ratio
        groups = [mask_by_sorting(part, of - keep) for row in score for part in row.split(of)]
        return torch.cat(groups).view(score.shape)
    if pattern.group == "matrix":
        return mask_by_sorting(score, int(score.numel() * pattern.sparsity + 1e-6))
    parts = score.split(1) if pattern.group == "row" else score.split(pattern.block_size, dim=1)
    masks = [mask_by_sorting(part, int(part.numel() * pattern.sparsity + 1e-6)) for part in parts]
    return torch.cat(masks, dim=0 if pattern.group == "row" else 1)


PATTERNS = st.one_of(
    st.builds(
        Pattern,
        sparsity=st.sampled_from([0.0, 0.1, 0.29, 0.5, 2 / 3, 0.7, 0.99]),
        group=st.sampled_from(["row", "matrix", "block"]),
        block_size=st.sampled_from([4, 5, 128]),
    ),
    st.sampled_from([(2, 4), (1, 4), (3, 4), (4, 8), (1, 2), (1, 3)]).map(lambda nm: Pattern(keep=nm[0], of=nm[1])),
)


@settings(max_examples=150, deadline=None)
@given(pattern=PATTERNS, rows=st.integers(1, 6), seed=st.integers(0, 99), num_values=st.sampled_from([1, 2, 5, 10_000]))
def test_the_mask_is_that_of_a_stable_sort_also_where_scores_tie(pattern, rows, seed, num_values):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(num_values, (rows, 24), generator=generator).float()
    assert torch.equal(keep_largest(score, pattern), reference(score, pattern))


def test_the_whole_part_of_a_product_goes_and_floats_do_not_lose_one():
    assert [num_removed(100, 0.29), num_removed(7, 0.5), num_removed(10, 0.7), num_removed(3, 0)] == [29, 3, 7, 0]


def test_inputs_that_are_no_whole_number_of_groups_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^layers\.0\.q: its 30 inputs are not allowed with of=4; allowed: a"):
        Pattern(keep=2, of=4).check("layers.0.q", 30)


@pytest.mark.parametrize("kind", ["normal", "ties", "ascending", "constant"])
@pytest.mark.parametrize("k", [1, 2, 300, 999, 1000])
def test_the_kth_smallest_is_that_of_a_sorted_row(kind, k):
    normal = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    values = {
        "normal": normal,
        "ties": (3 * normal).round(),
        "ascending": torch.arange(3000).view(3, 1000).float(),
        "constant": torch.zeros(3, 1000),
    }[kind]
    assert torch.equal(kth_smallest(values, k), values.sort(dim=1).values[:, k - 1 : k])


def test_large_matrices_are_chosen_as_small_ones_are():
    score = torch.randn(300, 400, generator=torch.Generator().manual_seed(1))
    for pattern in (Pattern(group="matrix", sparsity=0.3), Pattern(group="block", block_size=300)):
        assert torch.equal(keep_largest(score, pattern), reference(score, pattern))
    tied = (4 * score).round()
    pattern = Pattern(group="matrix")
    assert torch.equal(keep_largest(tied, pattern), reference(tied, pattern))
