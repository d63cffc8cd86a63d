import pytest
import torch

from spp.sparsity.curvature import Curvature
from spp.sparsity.least_squares import solve_least_squares
from spp.sparsity.pattern import Pattern, keep_largest
from spp.sparsity.sweep import update_in_sweep


def solved_row_by_row(weight, mask, gram, ridge):
    """(H + r I)_KK (v - w)_K = H_KR w_R for the kept K and the removed R of every row."""
    new = torch.zeros_like(weight)
    for row, kept in enumerate(mask):
        k, r = kept.nonzero()[:, 0], (~kept).nonzero()[:, 0]
        left = gram[k[:, None], k] + ridge * torch.eye(len(k), dtype=gram.dtype)
        new[row, k] = weight[row, k] + torch.linalg.solve(left, gram[k[:, None], r] @ weight[row, r])
    return new


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_it_solves_the_normal_equations_of_every_row(linear, damping):
    fc = linear()
    mask = keep_largest(fc.weight.abs(), Pattern(sparsity=0.5, group="matrix"))
    expected = solved_row_by_row(fc.weight, mask, fc.gram, damping * fc.gram.diagonal().mean())
    new = solve_least_squares(fc.weight, mask, Curvature(fc.gram), damping, tolerance=1e-9)
    torch.testing.assert_close(new, expected, rtol=1e-5, atol=1e-6)
    assert not new[~mask].any()


def test_single_precision_leaves_no_gradient_on_the_kept_weights(linear):
    fc = linear(24, 64, 500)
    mask = keep_largest(fc.weight.abs(), Pattern(keep=2, of=4))
    new = solve_least_squares(fc.weight.float(), mask, Curvature(fc.gram.float()), damping=0.0)
    gradient = ((new.double() - fc.weight) @ fc.gram)[mask]
    before = ((fc.weight * ~mask) @ fc.gram)[mask]
    assert gradient.abs().max() < 1e-4 * before.abs().max()


def test_it_is_the_best_of_all_updates_and_singular_inputs_do_not_matter(linear):
    fc = linear(24, 32, num_tokens=20)
    mask = keep_largest(fc.weight.abs(), Pattern(sparsity=0.5))
    curvature = Curvature(fc.gram)
    new = solve_least_squares(fc.weight, mask, curvature, damping=0.0)
    assert new.isfinite().all()
    assert fc.loss(new) < fc.loss(update_in_sweep(fc.weight, mask, curvature.inverse_factor))


def test_rows_with_nothing_to_do_stay(linear):
    fc = linear(3, 8)
    mask = torch.ones(3, 8, dtype=torch.bool)
    mask[1] = False
    mask[2, 0] = False
    new = solve_least_squares(fc.weight, mask, Curvature(fc.gram), damping=0.0)
    assert torch.equal(new[0], fc.weight[0])
    assert not new[1].any()
    assert fc.loss(new) < fc.loss(fc.weight * mask)
