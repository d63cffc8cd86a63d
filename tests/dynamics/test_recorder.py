"""The samples of Gamma: when, how many, and that they survive a restart."""

import pytest
import torch
from torch import nn

from spp.dynamics.bregman import BregmanOptimizer
from spp.dynamics.recorder import PathRecorder


def make(num_steps, **hyper):
    masks = {"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(2))}
    return masks, BregmanOptimizer(masks, num_steps=num_steps, **hyper)


def advance(masks, opt, recorder, num_steps):
    for _ in range(num_steps):
        masks["a"].grad = torch.tensor([-3.0, -2.0, 1.0])
        masks["b"].grad = torch.tensor([-2.5, 0.5])
        opt.step()
        recorder.record()


def test_samples_are_gamma_at_the_steps_named():
    masks, opt = make(40, eta=0.05)
    recorder = PathRecorder(opt, every=10)
    expected = []
    for _ in range(4):
        advance(masks, opt, recorder, 10)
        expected.append({name: opt.state_of(name)["Gamma"].float() for name in masks})
    trace = recorder.trace()
    assert trace.steps.tolist() == [10, 20, 30, 40]
    for name in masks:
        assert torch.equal(trace.gamma[name], torch.stack([sample[name] for sample in expected]))
        assert trace.gamma[name].dtype == torch.float32
    assert trace.gamma["a"][-1].count_nonzero() > trace.gamma["a"][0].count_nonzero()


@pytest.mark.parametrize(("num_steps", "every", "num_samples"), [(10, 1, 10), (200, 2, 100), (950, 10, 95)])
def test_about_a_hundred_samples_by_default(num_steps, every, num_samples):
    masks, opt = make(num_steps)
    recorder = PathRecorder(opt)
    advance(masks, opt, recorder, num_steps)
    assert recorder.every == every
    assert len(recorder.trace().steps) == num_samples


def test_memory_is_bounded_when_the_run_goes_on():
    masks, opt = make(10)
    recorder = PathRecorder(opt)
    advance(masks, opt, recorder, 1000)
    steps = recorder.trace().steps
    assert len(steps) < 200
    assert steps.tolist() == list(range(recorder.every, 1001, recorder.every))


def test_a_restart_loses_no_sample():
    masks, opt = make(300)
    whole = PathRecorder(opt)
    advance(masks, opt, whole, 300)
    masks, opt = make(300)
    first = PathRecorder(opt)
    advance(masks, opt, first, 101)
    second = PathRecorder(opt)
    second.load_state_dict(first.state_dict())
    advance(masks, opt, second, 199)
    assert torch.equal(second.trace().steps, whole.trace().steps)
    assert all(torch.equal(second.trace().gamma[n], whole.trace().gamma[n]) for n in masks)


def test_nothing_sampled_is_an_empty_trace():
    _, opt = make(300)
    trace = PathRecorder(opt).trace()
    assert trace.steps.shape == (0,)
    assert {name: tuple(gamma.shape) for name, gamma in trace.gamma.items()} == {"a": (0, 3), "b": (0, 2)}


def test_every_is_checked():
    _, opt = make(10)
    with pytest.raises(ValueError, match=r"^every: 0 is not allowed: must be >= 1 step"):
        PathRecorder(opt, every=0)
