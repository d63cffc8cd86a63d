"""The optimizer against straight loops over scalars, and on problems whose solution is known."""

import copy
import io
import math
from itertools import pairwise

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spp.dynamics.bregman import BregmanOptimizer

NUM_STEPS = 60


def give(masks, gradients):
    for name, mask in masks.items():
        mask.grad = gradients[name].to(mask.dtype)


def drive(opt, masks, gradients):
    for batch in gradients:
        give(masks, batch)
        opt.step()


def crossing(step, before, after, lam):
    return step - 1 + (lam - before) / (after - before)


def textbook_loop(grads, lr, kappa, lam, rho):
    m, v, gamma, entry = 1.0, 0.0, 0.0, math.inf
    for k, g in enumerate(grads, start=1):
        m, v, old = m - kappa * lr * (g + rho * (m - gamma)), v + lr * rho * (m - gamma), v
        gamma = kappa * math.copysign(max(abs(v) - lam, 0), v)
        if abs(v) > lam and entry == math.inf:
            entry = crossing(k, old, v, lam) if v > 0 else crossing(k, -old, -v, lam)
    return m, v, gamma, entry


def released_loop(grads, lr, rho):
    m, v, gamma, entry, first, second = 1.0, 0.0, 0.0, math.inf, 0.0, 0.0
    for k, g in enumerate(grads, start=1):
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        eta = lr / (1 - 0.9**k)
        m = m - eta * first / (math.sqrt(second / (1 - 0.999**k)) + 1e-4)
        old, v = v, v + rho * eta * (m - gamma)
        gamma = max(max(1 - 3 / abs(v), 0) * v, 0)
        if v > 3 and entry == math.inf:
            entry = crossing(k, old, v, 3)
    return m, v, gamma, entry


def priced_loop(grads, scale, cost, lr, kappa, lam, rho, momentum, eta):
    m, v, gamma, entry, average = 1.0, 0.0, 0.0, math.inf, 0.0
    for k, g in enumerate(grads, start=1):
        average = momentum * average + (1 - momentum) * (g / (scale * cost) + rho * (m - gamma))
        m = m - lr * average / (1 - momentum**k)
        old, v = v, v + eta * (m - gamma)
        gamma = kappa * max(v - lam, 0)
        if v > lam and entry == math.inf:
            entry = crossing(k, old, v, lam)
    return m, v, gamma, entry


def check(opt, masks, gradients, loop, rel=1e-11):
    num_entered = 0
    for name, mask in masks.items():
        state = opt.state_of(name)
        assert {key: tuple(value.shape) for key, value in state.items()} == {
            key: tuple(mask.shape) for key in ("M", "V", "Gamma", "entry", "S")
        }
        for unit in range(len(mask)):
            expected = loop(name, [float(batch[name][unit]) for batch in gradients])
            found = [float(state[key][unit]) for key in ("M", "V", "Gamma", "entry")]
            assert found == pytest.approx(expected, rel=rel, abs=rel)
            num_entered += expected[3] < math.inf
    num_units = sum(len(mask) for mask in masks.values())
    assert 0 < num_entered < num_units, "the example must hold both kinds of unit"


def test_textbook_is_the_papers_loop(make_masks, random_gradients):
    masks, gradients = make_masks(), random_gradients(NUM_STEPS, 0.7)
    hyper = {"lr": 0.05, "kappa": 1.5, "lam": 0.6, "rho": 0.8}
    opt = BregmanOptimizer(masks, "textbook", **hyper)
    drive(opt, masks, gradients)
    check(opt, masks, gradients, lambda name, grads: textbook_loop(grads, **hyper))
    assert any((opt.state_of(name)["Gamma"] < 0).any() for name in masks), "two-sided"


@pytest.mark.parametrize("rho", [1.0, 0.6])
def test_released_is_the_released_loop(make_masks, random_gradients, rho):
    masks, gradients = make_masks(), random_gradients(NUM_STEPS, 1e-3)
    opt = BregmanOptimizer(masks, "released", lr=0.08, rho=rho)
    drive(opt, masks, gradients)
    check(opt, masks, gradients, lambda name, grads: released_loop(grads, 0.08, rho))


def test_released_samples_occupancy(make_masks, random_gradients):
    masks, gradients = make_masks(), random_gradients(NUM_STEPS, 1e-3)
    opt = BregmanOptimizer(masks, "released", lr=0.08)
    for index, batch in enumerate(gradients):
        drive(opt, masks, [batch])
        if index % 5 == 0:
            opt.sample_occupancy()
    for name in masks:
        for unit in range(len(masks[name])):
            series = [float(batch[name][unit]) for batch in gradients]
            expected = sum(released_loop(series[: k + 1], 0.08, 1.0)[2] != 0 for k in range(0, NUM_STEPS, 5))
            assert opt.state_of(name)["S"][unit] == expected
    assert opt.state_of(name)["S"].dtype == torch.int64


def attention_scale(pairs, batch):
    flat = [abs(float(x)) for pair in pairs if pair.kind != "mlp" for x in batch[pair.name]]
    return sum(flat) / len(flat)


PRICED = {"lr": 0.02, "kappa": 0.9, "lam": 0.25, "rho": 2.0, "momentum": 0.8, "eta": 0.03}


@pytest.mark.parametrize("num_calibration", [0, 4])
def test_priced_is_the_prototypes_loop(pairs, make_masks, random_gradients, num_calibration):
    masks, gradients = make_masks(), random_gradients(NUM_STEPS + 4, 3e-4)
    calibration, gradients = gradients[:num_calibration], gradients[4:]
    opt = BregmanOptimizer(masks, **PRICED)
    for batch in calibration:
        give(masks, batch)
        opt.calibrate()
    assert all((mask == 1).all() for mask in masks.values())
    drive(opt, masks, gradients)
    scales = [attention_scale(pairs, batch) for batch in calibration or gradients[:1]]
    scale = sum(scales) / len(scales)
    assert opt.scale == pytest.approx(scale, rel=1e-12)
    mean_cost = (3 * 60 + 4 * 40) / 7
    cost = {pair.name: pair.macs_per_unit / mean_cost for pair in pairs}
    check(opt, masks, gradients, lambda name, grads: priced_loop(grads, scale, cost[name], **PRICED))


def test_priced_defaults(make_masks, random_gradients):
    masks, gradients = make_masks(), random_gradients(100, 1e-3)
    opt = BregmanOptimizer(dict(masks), num_steps=100)
    drive(opt, masks, gradients)
    defaults = {"lr": 0.03, "kappa": 1.0, "lam": 0.4, "rho": 3.0, "momentum": 0.9, "eta": 0.02}
    assert opt.hyper == pytest.approx(defaults)
    flat = torch.cat(list(gradients[0].values())).abs()
    check(opt, masks, gradients, lambda name, g: priced_loop(g, float(flat.mean()), 1.0, **defaults))


def test_unit_costs_given_by_name_overrule_the_pairs(pairs, make_masks, random_gradients):
    masks, gradients = make_masks(), random_gradients(NUM_STEPS, 3e-4)
    costs = {"b.0.attn.qk": 2.0, "b.0.attn.vo": 1.0, "b.0.mlp": 0.5, "b.1.mlp": 3.0}
    opt = BregmanOptimizer(masks, unit_costs=costs, **PRICED)
    drive(opt, masks, gradients)
    scale, mean = attention_scale(pairs, gradients[0]), (3 * 2.0 + 4 * 1.0) / 7
    check(opt, masks, gradients, lambda name, g: priced_loop(g, scale, costs[name] / mean, **PRICED))


def test_float32_masks_follow_the_loop_and_keep_a_float64_path(make_masks, random_gradients):
    masks, gradients = make_masks(torch.float32), random_gradients(NUM_STEPS, 0.7)
    hyper = {"lr": 0.05, "kappa": 1.5, "lam": 0.6, "rho": 0.8}
    opt = BregmanOptimizer(masks, "textbook", **hyper)
    drive(opt, masks, gradients)
    check(opt, masks, gradients, lambda name, grads: textbook_loop(grads, **hyper), rel=1e-4)
    state = opt.state_of("b.0.mlp")
    assert [state[key].dtype for key in ("M", "V", "Gamma", "entry")] == [torch.float32] + [torch.float64] * 3


@pytest.mark.parametrize("preset", ["textbook", "priced"])
def test_v_follows_the_masks_as_stored(make_masks, random_gradients, preset):
    masks, gradients = make_masks(torch.float32), random_gradients(5, 1.0)
    step = {"lr": 0.1} if preset == "textbook" else {"eta": 0.1}
    opt = BregmanOptimizer(masks, preset, lam=100.0, **step)
    expected = {name: torch.zeros(len(mask), dtype=torch.float64) for name, mask in masks.items()}
    for batch in gradients:
        before = {name: mask.detach().clone() for name, mask in masks.items()}
        drive(opt, masks, [batch])
        for name, mask in masks.items():
            followed = before[name] if preset == "textbook" else mask.detach()
            expected[name] += 0.1 * followed.double()
            assert torch.equal(opt.state_of(name)["V"], expected[name])


def regression(generator, num_rows=300, num_columns=40, num_true=6):
    X = torch.randn(num_rows, num_columns, generator=generator, dtype=torch.float64)
    truth = torch.zeros(num_columns, dtype=torch.float64)
    truth[:num_true] = torch.tensor([1.0, -1.0]).repeat(num_true // 2) * torch.linspace(1, 2, num_true)
    return X, X @ truth + 0.1 * torch.randn(num_rows, generator=generator, dtype=torch.float64), truth


@pytest.mark.parametrize("seed", range(3))
def test_textbook_finds_the_true_support_before_anything_else(seed):
    X, y, truth = regression(torch.Generator().manual_seed(seed))
    mask = nn.Parameter(torch.zeros(len(truth), dtype=torch.float64))
    opt = BregmanOptimizer({"w": mask}, "textbook", lr=0.02, kappa=10.0, lam=1.0, rho=1.0, num_steps=400)
    for _ in range(400):
        opt.zero_grad()
        (0.5 * (X @ mask - y).square().mean()).backward()
        opt.step()
    entry = opt.state_of("w")["entry"]
    assert entry[truth != 0].max() < entry[truth == 0].min()
    assert entry[truth != 0].isfinite().all()


@pytest.mark.parametrize(
    ("preset", "hyper"),
    [("textbook", {"lr": 0.1, "rho": 1.0, "lam": 0.5}), ("priced", {"rho": 1.0, "eta": 0.05, "lam": 0.4})],
)
def test_gamma_tends_to_the_unregularised_minimiser(preset, hyper):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    hessian = root @ root.T / 5 + torch.eye(5, dtype=torch.float64)
    solution = torch.tensor([0.3, 1.0, 1.7, 0.6, 2.0], dtype=torch.float64)
    mask = nn.Parameter(torch.ones(5, dtype=torch.float64))
    opt = BregmanOptimizer({"w": mask}, preset, **hyper)
    for _ in range(1500):
        error = mask - solution
        mask.grad = (hessian @ error).detach()
        opt.step()
    torch.testing.assert_close(opt.state_of("w")["Gamma"], solution, atol=1e-4, rtol=0)
    torch.testing.assert_close(mask.detach(), solution, atol=1e-4, rtol=0)


def test_units_with_unequal_gradients_enter_at_unequal_times():
    masks = {"w": nn.Parameter(torch.ones(500))}
    opt = BregmanOptimizer(masks, num_steps=100)
    gradient = -torch.rand(500, generator=torch.Generator().manual_seed(0)) - 0.5
    for _ in range(100):
        give(masks, {"w": gradient})
        opt.step()
    entry = opt.state_of("w")["entry"]
    assert entry.isfinite().all()
    assert len(entry.unique()) == 500
    assert (entry.argsort() == gradient.argsort()).all()


@pytest.mark.parametrize("preset", ["textbook", "priced"])
def test_entry_time_is_that_of_fine_steps(preset):
    def entry_in_coarse_steps(fineness):
        mask = nn.Parameter(torch.ones(20, dtype=torch.float64))
        hyper = {"lr": 0.01 / fineness, "lam": 0.3, "rho": 1.0}
        if preset == "priced":
            hyper |= {"momentum": 0.0, "eta": 0.01 / fineness}
        opt = BregmanOptimizer({"w": mask}, preset, **hyper)
        for _ in range(150 * fineness):
            mask.grad = torch.linspace(-1.5, -0.5, 20, dtype=torch.float64)
            opt.step()
        return opt.state_of("w")["entry"] / fineness

    coarse, fine = entry_in_coarse_steps(1), entry_in_coarse_steps(20)
    assert fine.isfinite().all()
    assert (coarse - fine).abs().max() < 1.0
    offset = coarse - fine
    assert (offset - offset.mean()).abs().max() < 0.15, "rounding to whole steps would scatter by 0.5"


@pytest.mark.parametrize(
    ("preset", "hyper"),
    [("priced", PRICED), ("textbook", {"lr": 0.05, "lam": 0.6}), ("released", {"lr": 0.08})],
)
@pytest.mark.parametrize("stop", [0, 23])
def test_resumed_run_is_the_undisturbed_one(make_masks, random_gradients, preset, hyper, stop):
    gradients = random_gradients(NUM_STEPS, 0.5)

    def start(masks):
        opt = BregmanOptimizer(masks, preset, **hyper)
        return opt, torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.3, total_iters=NUM_STEPS)

    def advance(opt, scheduler, masks, batches):
        for batch in batches:
            drive(opt, masks, [batch])
            opt.sample_occupancy()
            scheduler.step()

    whole = make_masks(torch.float32)
    whole_opt, whole_scheduler = start(whole)
    half = make_masks(torch.float32)
    half_opt, half_scheduler = start(half)
    if preset == "priced":
        for opt, masks in ((whole_opt, whole), (half_opt, half)):
            give(masks, gradients[-1])
            opt.calibrate()
    advance(whole_opt, whole_scheduler, whole, gradients)
    advance(half_opt, half_scheduler, half, gradients[:stop])
    buffer = io.BytesIO()
    torch.save((half_opt.state_dict(), half_scheduler.state_dict(), dict(half)), buffer)
    buffer.seek(0)
    state, scheduler_state, saved = torch.load(buffer, weights_only=True)

    resumed = make_masks(torch.float32)
    for name in resumed:
        resumed[name].data.copy_(saved[name])
    opt, scheduler = start(resumed)
    opt.load_state_dict(state)
    scheduler.load_state_dict(scheduler_state)
    advance(opt, scheduler, resumed, gradients[stop:])
    assert opt.num_steps_taken == whole_opt.num_steps_taken == NUM_STEPS
    assert opt.hyper == whole_opt.hyper == pytest.approx(BregmanOptimizer(whole, preset, **hyper).hyper)
    for name in whole:
        expected, found = whole_opt.state_of(name), opt.state_of(name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_calibration_is_part_of_the_state(make_masks, random_gradients):
    gradients = random_gradients(3, 1.0)
    masks = make_masks()
    opt = BregmanOptimizer(masks)
    give(masks, gradients[0])
    opt.calibrate()
    resumed = BregmanOptimizer(masks)
    resumed.load_state_dict(opt.state_dict())
    for one in (opt, resumed):
        give(masks, gradients[1])
        one.calibrate()
        give(masks, gradients[2])
    opt.step()
    resumed.step()
    assert opt.scale == resumed.scale


def test_closure_is_run_with_gradients_and_its_loss_returned():
    mask = nn.Parameter(torch.ones(3))
    opt = BregmanOptimizer({"w": mask}, "textbook")

    def closure():
        opt.zero_grad()
        loss = mask.square().sum()
        loss.backward()
        return loss

    assert opt.step(closure) == 3.0
    assert opt.num_steps_taken == 1
    torch.testing.assert_close(mask.grad, torch.full((3,), 2.0))


def test_a_mask_the_loss_does_not_use_has_gradient_zero():
    masks = {"used": nn.Parameter(torch.ones(2)), "unused": nn.Parameter(torch.ones(2))}
    opt = BregmanOptimizer(masks, "textbook", lr=0.1)
    masks["used"].grad = torch.ones(2)
    opt.step()
    torch.testing.assert_close(masks["unused"].detach(), torch.full((2,), 0.9))


def pickled(pieces):
    buffer = io.BytesIO()
    torch.save(pieces, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("replicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("preset", ["priced", "textbook", "released"])
def test_a_copy_goes_on_as_the_original_and_alone(make_masks, random_gradients, preset, replicate):
    masks, gradients = make_masks(), random_gradients(30, 0.5)
    opt = BregmanOptimizer(masks, preset)
    torch.optim.lr_scheduler.StepLR(opt, 10)
    drive(opt, masks, gradients[:20])
    before = {name: opt.state_of(name) for name in masks}
    twin = replicate(opt)
    twin_masks = dict(zip(masks, twin.param_groups[0]["params"], strict=True))
    drive(twin, twin_masks, gradients[20:])
    for name in masks:
        assert torch.equal(twin.state_of(name)["M"], twin_masks[name])
        assert all(torch.equal(opt.state_of(name)[key], value) for key, value in before[name].items())
    drive(opt, masks, gradients[20:])
    for name in masks:
        assert all(torch.equal(twin.state_of(name)[key], value) for key, value in opt.state_of(name).items())
    twin.load_state_dict(opt.state_dict())
    assert (twin.num_steps_taken, twin.hyper, twin.sizes) == (30, opt.hyper, opt.sizes)


def test_the_state_has_the_shape_of_the_mask():
    mask = nn.Parameter(torch.ones(2, 3))
    opt = BregmanOptimizer({"w": mask}, "priced")
    mask.grad = torch.arange(6.0).view(2, 3)
    opt.step()
    state = opt.state_of("w")
    assert {value.shape for value in state.values()} == {(2, 3)}
    torch.testing.assert_close(state["V"], opt.hyper["eta"] * state["M"].double())


def test_scalars_of_numpy_and_torch_are_numbers(make_masks):
    opt = BregmanOptimizer(make_masks(), lr=np.float32(0.25), lam=torch.tensor(0.5), rho=np.int64(1))
    assert {name: opt.hyper[name] for name in ("lr", "lam", "rho")} == {"lr": 0.25, "lam": 0.5, "rho": 1.0}


class Problem(pl.LightningModule):
    """A mask on a fixed linear map, as a stage would train it."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Parameter(torch.ones(4))
        self.seen_steps = []

    def training_step(self, batch, batch_index):
        X, y = batch
        self.seen_steps.append(self.optimizers().num_steps_taken)
        return (X @ self.mask - y).square().mean()

    def configure_optimizers(self):
        opt = BregmanOptimizer({"w": self.mask}, num_steps=8)
        return {
            "optimizer": opt,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.StepLR(opt, 1, 0.9), "interval": "step"},
        }


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_and_resumes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(32, 4, generator=generator), torch.randn(32, generator=generator)
    loader = DataLoader(TensorDataset(X, y), batch_size=32)

    def trainer(max_steps):
        return pl.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    def final_state(run):
        return run.optimizers[0].state_of("w")

    module, run = Problem(), trainer(8)
    run.fit(module, loader)
    assert module.seen_steps == list(range(8))

    mask = nn.Parameter(torch.ones(4))
    opt = BregmanOptimizer({"w": mask}, num_steps=8)
    for index in range(8):
        opt.param_groups[0]["lr"] = 0.1 * 0.9**index
        opt.zero_grad()
        (X @ mask - y).square().mean().backward()
        opt.step()
    for key, value in opt.state_of("w").items():
        torch.testing.assert_close(final_state(run)[key], value, rtol=1e-6, atol=1e-7)

    first = trainer(5)
    first.fit(Problem(), loader)
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = trainer(8)
    second.fit(Problem(), loader, ckpt_path=tmp_path / "last.ckpt")
    for key, value in final_state(run).items():
        assert torch.equal(final_state(second)[key], value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_the_cpu_run(make_masks, random_gradients):
    gradients = random_gradients(NUM_STEPS, 0.5)
    here, there = make_masks(), make_masks()
    opt_here, opt_there = BregmanOptimizer(here), BregmanOptimizer(there)
    for mask in there.values():
        mask.data = mask.data.cuda()
    drive(opt_here, here, gradients)
    drive(opt_there, there, [{n: g.cuda() for n, g in batch.items()} for batch in gradients])
    resumed = BregmanOptimizer(there)
    resumed.load_state_dict(opt_here.state_dict())
    for name in here:
        for key, value in opt_here.state_of(name).items():
            torch.testing.assert_close(opt_there.state_of(name)[key].cpu(), value)
            assert resumed.state_of(name)[key].is_cuda


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda masks: BregmanOptimizer({}), "masks: is empty"),
        (lambda masks: BregmanOptimizer(list(masks.values())), "masks: list is not allowed: must map names to"),
        (lambda masks: BregmanOptimizer(masks, lr="a"), "lr: 'a' is not allowed: must be a number; use lr=0.03"),
        (lambda masks: BregmanOptimizer(masks, lr=True), "lr: True is not allowed: must be a number; use lr=0.03"),
        (lambda masks: BregmanOptimizer(masks, "textbook", eta="a"), "eta: 'a' is not allowed: must be a number"),
        (lambda masks: BregmanOptimizer(masks, unit_costs={"b.0.mlp": 1.0}), "unit_costs: b.0.attn.qk: None"),
        (lambda masks: BregmanOptimizer(masks).state_of("nosuch"), "mask: 'nosuch' is not one; allowed: b.0"),
        (lambda masks: BregmanOptimizer(masks).step(), "masks: none has a gradient; call backward"),
        (lambda masks: BregmanOptimizer(masks, "textbook").calibrate(), "calibrate: preset=textbook"),
        (lambda masks: BregmanOptimizer(masks).load_state_dict({}), "state_dict: is of another preset"),
        (
            lambda masks: BregmanOptimizer(masks).load_state_dict(BregmanOptimizer(masks, "textbook").state_dict()),
            "state_dict: is of another preset",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(make_masks, call, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        call(make_masks())
    assert "\n" not in str(caught.value)


def test_calibrate_after_a_step_is_refused(make_masks, random_gradients):
    masks = make_masks()
    opt = BregmanOptimizer(masks)
    drive(opt, masks, random_gradients(1, 1.0))
    with pytest.raises(ValueError, match="before the first step"):
        opt.calibrate()


def test_a_zero_gradient_cannot_set_the_scale(make_masks):
    masks = make_masks()
    opt = BregmanOptimizer(masks)
    give(masks, {name: torch.zeros_like(mask) for name, mask in masks.items()})
    for _ in range(2):
        with pytest.raises(ValueError, match="masks: their gradient is zero"):
            opt.step()


@pytest.mark.parametrize("preset", ["priced", "textbook", "released"])
@pytest.mark.parametrize("num_good", [0, 3])
def test_a_gradient_that_is_not_finite_stops_the_run_and_changes_nothing(
    make_masks, random_gradients, preset, num_good
):
    masks, gradients = make_masks(), random_gradients(4, 1.0)
    opt = BregmanOptimizer(masks, preset)
    drive(opt, masks, gradients[:num_good])
    before = [opt.state_of(name) for name in masks]
    give(masks, {name: torch.full_like(mask, torch.nan) for name, mask in masks.items()})
    with pytest.raises(FloatingPointError, match="finite"):
        opt.step()
    for name, state in zip(masks, before, strict=True):
        assert all(torch.equal(opt.state_of(name)[key], value) for key, value in state.items())
    drive(opt, masks, gradients[num_good:])
    assert all(mask.isfinite().all() for mask in masks.values())
    assert opt.num_steps_taken == 4


def test_entry_is_kept_when_a_unit_leaves_and_returns():
    mask = nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = BregmanOptimizer({"w": mask}, "textbook", lr=0.1, lam=0.5, rho=1.0)
    inside = []
    for k in range(300):
        mask.grad = torch.tensor([-1.0 if (k + 30) // 60 % 2 == 0 else 1.0], dtype=torch.float64)
        opt.step()
        inside.append(bool(opt.state_of("w")["Gamma"] > 0))
    first = inside.index(True)
    assert sum(b and not a for a, b in pairwise(inside)) >= 2, "it must return"
    assert first <= opt.state_of("w")["entry"] < first + 1


def test_a_clipped_gradient_moves_no_mask_further_than_its_largest_size():
    mask = torch.nn.Parameter(torch.ones(4))
    optimizer = BregmanOptimizer({"m": mask}, rho=0.0, momentum=0.0, lr=0.1, clip=3.0, num_steps=10)
    (mask * torch.tensor([1.0, 1.0, 1.0, -97.0])).sum().backward()  # mean size 25
    optimizer.step()
    torch.testing.assert_close(mask.detach(), 1 - 0.1 * torch.tensor([0.04, 0.04, 0.04, -3.0]))
    with pytest.raises(ValueError, match=r"^clip: 3 is not allowed with preset=textbook; allowed: above 0 with priced"):
        BregmanOptimizer({"m": mask}, "textbook", clip=3)
