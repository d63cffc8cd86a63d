"""A step that is too large is noticed, and noise is not taken for one."""

import warnings

import pytest
import torch
from torch import nn

from spp.dynamics.bregman import BregmanOptimizer


def quadratic(opt, mask, curvature, num_steps, noise=0.0, solution=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        error = mask.detach() - solution
        mask.grad = curvature * error + noise * torch.randn(len(mask), generator=generator)
        opt.step()


def test_divergence_warns_once_with_the_bound_and_the_curvature_and_then_stops():
    mask = nn.Parameter(torch.ones(4))
    opt = BregmanOptimizer({"w": mask}, "textbook", lr=0.05, rho=0.5)
    curvature = torch.tensor([1.0, 2.0, 5.0, 60.0])
    with (
        pytest.warns(UserWarning, match=r"kappa\*lr\*\(L \+ 2\*rho\) < 2, is 3\.05 .*L = 60;") as caught,
        pytest.raises(FloatingPointError, match="no longer finite at step") as error,
    ):
        quadratic(opt, mask, curvature, 1000)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message) + str(error.value)
    assert isinstance(error.value, ValueError)
    assert "must keep kappa*lr*(L + 2*rho) < 2, is 3.05 with the estimated L = 60; lower lr" in str(error.value)
    assert mask.isfinite().all()


def test_divergence_with_momentum_warns_too():
    mask = nn.Parameter(torch.ones(100))
    opt = BregmanOptimizer({"w": mask}, lr=0.1, rho=1.0, momentum=0.5)
    with pytest.warns(UserWarning, match=r"must keep lr\*\(L \+ 2\*rho\) < 6"):
        quadratic(opt, mask, torch.tensor([0.1] * 99 + [160.0]), 60)


@pytest.mark.parametrize("lr_share", [0.3, 0.9])
@pytest.mark.parametrize("noise", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_stable_step_never_warns(lr_share, noise, seed):
    """Up to nine tenths of the bound, growing from 0 to a far minimiser, with any noise."""
    curvature, rho = 10.0, 1.0
    mask = nn.Parameter(torch.zeros(30))
    opt = BregmanOptimizer({"w": mask}, "textbook", lr=lr_share * 2 / (curvature + 2 * rho), rho=rho, lam=50.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quadratic(opt, mask, curvature, 400, noise, solution=5.0, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_never_warns_with_momentum(seed):
    mask = nn.Parameter(torch.ones(30))
    opt = BregmanOptimizer({"w": mask}, num_steps=400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quadratic(opt, mask, 0.5, 400, noise=5.0, seed=seed)


def test_the_watch_goes_on_after_a_resume():
    def run(stop):
        mask = nn.Parameter(torch.ones(4))
        opt = BregmanOptimizer({"w": mask}, "textbook", lr=0.05, rho=0.5)
        quadratic(opt, mask, 60.0, stop)
        resumed = BregmanOptimizer({"w": mask}, "textbook", lr=0.05, rho=0.5)
        resumed.load_state_dict(opt.state_dict())
        steps = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            while not caught:
                quadratic(resumed, mask, 60.0, 1)
                steps += 1
        return stop + steps

    assert run(0) == run(2) == run(4)
