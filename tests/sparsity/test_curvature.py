import pytest
import torch

from spp.sparsity.curvature import Curvature, shrink


@pytest.mark.parametrize("size", [7, 700])
def test_the_factor_is_the_published_one(linear, size):
    gram = linear(2, size, 2 * size).gram
    curvature = Curvature(gram, damping=0.01)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(size, dtype=gram.dtype)
    published = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    torch.testing.assert_close(curvature.inverse_factor, published, rtol=1e-6, atol=1e-9)
    assert curvature.damping_used == 0.01


def test_a_factorisation_that_fails_is_damped_more_and_says_so(linear):
    gram = linear(2, 12).gram
    broken = gram - 0.05 * gram.diagonal().mean() * torch.eye(12, dtype=gram.dtype)
    curvature = Curvature(broken, damping=0.001, name="layers.3.q")
    with pytest.warns(RuntimeWarning, match=r"^layers\.3\.q: .* could not be factorised with damping=") as caught:
        factor = curvature.inverse_factor
    assert curvature.damping_used == pytest.approx(0.001 * 10 ** len(caught))
    ridge = curvature.damping_used * broken.diagonal().mean() * torch.eye(12, dtype=gram.dtype)
    torch.testing.assert_close(torch.linalg.inv(factor.T @ factor), broken + ridge, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_beyond_the_bound_it_stops_with_the_name():
    matrix = torch.ones(4, 4) - 5 * torch.eye(4) + 4.5 * torch.eye(4)
    matrix[0, 1] = matrix[1, 0] = 50
    with pytest.raises(ValueError, match=r"^layers\.3\.q: .* cannot be factorised with damping=1; allowed: a positive"):
        _ = Curvature(matrix, name="layers.3.q").inverse_factor


def test_an_input_that_is_always_zero_takes_no_part(linear):
    gram = linear(2, 6).gram
    gram[2], gram[:, 2] = 0, 0
    factor = Curvature(gram).inverse_factor
    assert factor.isfinite().all()
    assert not factor[2, 3:].any()
    assert not factor[:2, 2].any()


def test_shrinkage_leaves_the_diagonal():
    gram = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    assert torch.equal(shrink(gram, 0.25), torch.tensor([[2.0, 0.75], [0.75, 4.0]]))
    assert torch.equal(gram, torch.tensor([[2.0, 1.0], [1.0, 4.0]]))


def test_the_error_is_that_of_the_outputs(linear):
    fc = linear()
    change = fc.weight * 0.1
    assert Curvature(fc.gram).error(change) == pytest.approx(float((fc.x @ change.T).square().sum()))
