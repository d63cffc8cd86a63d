"""Permutations beside brute force."""

from itertools import permutations

import pytest
import torch

from spp.sparsity.permutation import (
    TiedHeads,
    deal_columns,
    find_permutation,
    retained_score,
    slot_gains,
    value_rows,
)


def scores(num_out=12, num_in=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_out, num_in, generator=generator) * torch.rand(num_in, generator=generator) ** 3


def retained_by_sorting(score, order, keep, of):
    groups = score[:, order].view(len(score), -1, of)
    return float(groups.sort(dim=2, descending=True).values[:, :, :keep].sum())


@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
def test_the_score_to_assign_by_differs_from_brute_force_by_constants_alone(keep, of):
    score = scores()
    groups = torch.arange(16).view(-1, of)
    others, candidates = groups[:, 1:], groups[:, 0]
    gains = slot_gains(score, others, candidates, keep).double()
    brute = torch.tensor(
        [
            [
                float(torch.cat([score[:, rest], score[:, [one]]], 1).topk(keep, dim=1).values.sum())
                for one in candidates
            ]
            for rest in others
        ],
        dtype=torch.float64,
    )

    def without_constants(matrix):
        return matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()

    torch.testing.assert_close(without_constants(gains / 2), without_constants(brute), rtol=1e-4, atol=1e-5)


def test_assigning_finds_the_best_of_all_orders_in_most_small_cases_and_nearly_so_in_the_others():
    found = 0
    for seed in range(10):
        score = scores(6, 8, seed)
        best = max(
            retained_by_sorting(score, torch.tensor(order), 2, 4)
            for order in permutations(range(8))
            if order[0] == 0 and list(order[:4]) == sorted(order[:4]) and list(order[4:]) == sorted(order[4:])
        )
        order = find_permutation(score, 2, 4, "assignment")
        reached = retained_by_sorting(score, order, 2, 4)
        assert reached <= best + 1e-5
        assert reached >= 0.99 * best
        found += reached >= best - 1e-5
    assert found >= 6


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (4, 8)])
def test_no_order_retains_less_than_the_one_there_was_and_assigning_no_less_than_dealing(keep, of, seed):
    score = scores(20, 32, seed)
    before = retained_by_sorting(score, torch.arange(32), keep, of)
    dealt, assigned = (find_permutation(score, keep, of, kind) for kind in ("heuristic", "assignment"))
    after = [retained_by_sorting(score, order, keep, of) for order in (dealt, assigned)]
    assert sorted(dealt.tolist()) == sorted(assigned.tolist()) == list(range(32))
    assert before <= after[0] + 1e-5 <= after[1] + 2e-5
    assert retained_score(score, assigned, keep, of) == pytest.approx(after[1])


def test_a_good_order_is_kept_where_dealing_would_spoil_it():
    # Every second pair of columns holds nothing: the order as it is loses nothing at 2:4.
    score = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 4.0]]).repeat(1, 4)
    identity = torch.arange(16)
    order = find_permutation(score, 2, 4, "heuristic")
    assert retained_score(score, order, 2, 4) == retained_score(score, identity, 2, 4) == float(score.sum())


def test_columns_are_dealt_by_importance_in_a_snake():
    assert deal_columns(torch.arange(8.0)[None], 4).tolist() == [0, 3, 4, 7, 1, 2, 5, 6]


def test_within_heads_the_order_is_one_for_the_query_heads_of_a_group_and_folds_into_the_values():
    heads = TiedHeads(num_groups=2, repeats=3)
    score = scores(10, 48, 3)
    order = find_permutation(score, 2, 4, "assignment", heads)
    by_head = (order.view(2, 3, 8) - torch.arange(6).view(2, 3, 1) * 8).tolist()
    assert all(sorted(head) == list(range(8)) for group in by_head for head in group)
    assert all(head == group[0] for group in by_head for head in group)
    assert retained_score(score, order, 2, 4) >= retained_score(score, torch.arange(48), 2, 4)
    generator = torch.Generator().manual_seed(1)
    values, output, x = (torch.randn(*shape, generator=generator) for shape in ((16, 5), (10, 48), (7, 5)))

    def attend(values, output):
        # What the attention weighs and adds up is, dimension by dimension, a row of the values.
        read = (x @ values.T).view(7, 2, 1, 8).expand(7, 2, 3, 8).reshape(7, 48)
        return read @ output.T

    folded = attend(values[value_rows(order, heads)], output[:, order])
    torch.testing.assert_close(folded, attend(values, output), rtol=1e-5, atol=1e-5)


def test_heads_whose_width_is_no_multiple_are_refused():
    with pytest.raises(
        ValueError, match=r"^heads: 4 heads of 24 inputs are not allowed with of=4; allowed: heads whose"
    ):
        find_permutation(scores(4, 24), 2, 4, "heuristic", TiedHeads(4))
