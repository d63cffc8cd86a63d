import copy
import math

import pytest
import torch
import torch.nn.functional as F
from timm.scheduler.cosine_lr import CosineLRScheduler

from spp.dynamics.path import SolutionPath
from spp.dynamics.recorder import PathRecorder
from spp.methods.registry import method_names, read_method
from spp.methods.units.spp.config import SPPConfig
from spp.methods.units.spp.search import build_optimizer, learning_rate
from spp.structure.compact import compact
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel


def test_the_method_is_found_by_name():
    assert "spp" in method_names()
    assert read_method({"name": "spp", "preset": "textbook"}) == SPPConfig(preset="textbook")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "sp"}, r"method\.name: 'sp' .*did you mean spp"),
        ({"name": "spp", "lam": -1}, r"method\.lam: -1 .*allowed: a positive number"),
        ({"name": "spp", "preset": "best"}, r"method\.preset: 'best' .*priced, textbook, released"),
        ({"name": "spp", "rho": -0.1}, r"method\.rho: -0\.1"),
        ({"name": "spp", "occupancy_interval": 0}, r"method\.occupancy_interval: 0 .*1 or more"),
        ({"name": "spp", "calibration_batches": 0}, r"method\.calibration_batches: 0 .*1 or more"),
        ({"name": "spp", "lamda": 1}, r"method\.lamda: unknown field.*did you mean method\.lam"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(values, named):
    with pytest.raises(ValueError, match=named) as caught:
        read_method(values)
    assert "\n" not in str(caught.value)


def test_what_chooses_a_member_does_not_shape_the_path():
    one, other = SPPConfig(score="V", min_units=4), SPPConfig(score="entry", min_units=1)
    assert one.search_settings("path") == other.search_settings("path")
    assert one.selection_settings() != other.selection_settings()
    assert SPPConfig.read({**one.search_settings("path"), **one.selection_settings()}, "method") == one


def timm_rates(first_lr, span, num_epochs):
    """The step size of every epoch where timm's scheduler is stepped after each epoch, as in deit_search.py."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=first_lr)
    scheduler = CosineLRScheduler(optimizer, t_initial=span, lr_min=1e-5)
    rates = []
    for epoch in range(num_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)
    return rates


def test_only_the_released_preset_lowers_its_step_size():
    released, short = SPPConfig(preset="released"), SPPConfig(preset="released", cosine_epochs=7)
    assert [learning_rate(released, 1e-3, e) for e in range(300)] == pytest.approx(timm_rates(1e-3, 300, 300))
    assert [learning_rate(short, 0.5, e) for e in range(12)] == pytest.approx(timm_rates(0.5, 7, 12))
    assert learning_rate(SPPConfig(), 0.03, 7) == 0.03
    with pytest.raises(ValueError, match=r"^cosine_epochs: 20 .*preset=released"):
        SPPConfig(cosine_epochs=20)


def test_quirks_belong_to_the_search_and_to_the_selection():
    plain, quirky = SPPConfig(), SPPConfig(released_quirks=True)
    assert "released_quirks" not in plain.search_settings("path")
    assert quirky.search_settings("path")["released_quirks"] is True
    assert quirky.selection_settings()["released_quirks"] is True
    assert (plain.masks_first_maps, quirky.masks_first_maps) == (False, True)


NUM_EPOCHS, BATCHES_PER_EPOCH = 2, 13


def plain_path(masked, batches, config):
    """The search written out: what it measures, when it steps, samples and records."""
    num_measured = min(config.calibration_batches, 3) if config.preset == "priced" else 0
    dynamics = build_optimizer(config, masked.masks, len(batches) - num_measured)
    recorder = PathRecorder(dynamics)
    recorder.record()
    first_lr = dynamics.param_groups[0]["lr"]
    for number, (images, labels) in enumerate(batches):
        epoch, batch = divmod(number, BATCHES_PER_EPOCH)
        if config.preset == "released":
            cosine = (1 + math.cos(math.pi * max(epoch - 1, 0) / config.cosine_epochs)) / 2
            dynamics.param_groups[0]["lr"] = 1e-5 + (first_lr - 1e-5) * cosine
        F.cross_entropy(masked(images), labels).backward()
        if number < num_measured:
            dynamics.calibrate()
        else:
            dynamics.step()
            if batch % config.occupancy_interval == 0:
                dynamics.sample_occupancy()
            recorder.record()
        dynamics.zero_grad()
    return SolutionPath.from_optimizer(dynamics, masked.pairs, trace=recorder.trace(), meta={"seed": 3})


def walk(tiny, search, batches, start=0, stop=None):
    """The batches from `start` to `stop` as the stage hands them out, which goes on in the midst of an epoch."""
    stop = len(batches) if stop is None else stop
    for number in range(start, stop):
        if number % BATCHES_PER_EPOCH == 0:
            search.on_epoch_start(number // BATCHES_PER_EPOCH, NUM_EPOCHS)
        tiny.run(search, batches[number : number + 1])


def frozen(tiny):
    masked = tiny.masked()
    masked.model.requires_grad_(False)
    return masked


def assert_same_path(path, other):
    for values, others in ((path.entry, other.entry), (path.V, other.V), (path.S, other.S)):
        assert all(torch.equal(values[name], value) for name, value in others.items())
    assert torch.equal(path.trace.steps, other.trace.steps)
    assert all(torch.equal(path.trace.gamma[name], gamma) for name, gamma in other.trace.gamma.items())
    assert path.meta == other.meta


SEARCHES = [
    SPPConfig(lam=0.2, occupancy_interval=4),
    SPPConfig(lam=0.1, momentum=0.5, calibration_batches=2, occupancy_interval=1),
    SPPConfig(preset="textbook", lam=0.2, occupancy_interval=5),
    SPPConfig(preset="released", lam=0.5, occupancy_interval=3, cosine_epochs=2),
]


@pytest.mark.parametrize("config", SEARCHES)
def test_the_search_is_the_plain_loop_bit_for_bit(tiny, config):
    masked, plain = frozen(tiny), frozen(tiny)
    batches = tiny.batches(masked, NUM_EPOCHS * BATCHES_PER_EPOCH)
    search = tiny.search(config, masked, len(batches))
    walk(tiny, search, batches)
    path = search.order({"seed": 3})
    assert_same_path(path, plain_path(plain, batches, config))
    assert all(torch.equal(mask, plain.masks[name]) for name, mask in masked.masks.items())
    assert int(torch.cat(list(path.S.values())).max()) > 0
    assert path.trace.steps[0] == 0
    assert search.summary()["num_steps"] == path.meta["num_steps"] == path.meta["num_steps_taken"]


@pytest.mark.parametrize("config", SEARCHES)
@pytest.mark.parametrize("stop", [0, 1, 6, 13, 18])
def test_a_search_goes_on_where_it_stopped_bit_for_bit(tiny, tmp_path, config, stop):
    batches = tiny.batches(tiny.masked(), NUM_EPOCHS * BATCHES_PER_EPOCH)
    whole, first, second = (tiny.search(config, frozen(tiny), len(batches)) for _ in range(3))
    walk(tiny, whole, batches)
    walk(tiny, first, batches, stop=stop)
    torch.save([first.masked.state_dict(), first.state_dict()], tmp_path / "checkpoint")
    masks, state = torch.load(tmp_path / "checkpoint", weights_only=True)
    second.masked.load_state_dict(masks)
    second.load_state_dict(state)
    walk(tiny, second, batches, start=stop)
    assert_same_path(second.order({}), whole.order({}))
    assert second.num_steps_taken == len(batches)


def test_an_epoch_that_is_announced_again_keeps_its_count(tiny):
    batches = tiny.batches(tiny.masked(), NUM_EPOCHS * BATCHES_PER_EPOCH)
    config = SPPConfig(lam=0.2, occupancy_interval=4)
    whole, resumed = (tiny.search(config, frozen(tiny), len(batches)) for _ in range(2))
    walk(tiny, whole, batches)
    walk(tiny, resumed, batches, stop=18)
    resumed.on_epoch_start(1, NUM_EPOCHS)
    walk(tiny, resumed, batches, start=18)
    assert_same_path(resumed.order({}), whole.order({}))


def test_what_the_record_and_the_reader_are_told(tiny):
    masked = frozen(tiny)
    batches = tiny.batches(masked, NUM_EPOCHS * BATCHES_PER_EPOCH)
    search = tiny.search(SPPConfig(lam=0.2), masked, len(batches))
    walk(tiny, search, batches)
    entered = {pair.name: search.dynamics.state_of(pair.name)["Gamma"] != 0 for pair in masked.pairs}
    share = float(torch.cat(list(entered.values())).double().mean())
    metrics = search.metrics()
    assert 0 < share < 1
    assert metrics.pop("mean_mask") == pytest.approx(float(torch.cat(list(masked.masks.values())).detach().mean()))
    assert metrics["support_all"] == pytest.approx(share)
    assert metrics["support_mlp"] == pytest.approx(
        float(torch.cat([entered[f"blocks.{i}.mlp"] for i in (0, 1)]).double().mean())
    )
    assert search.summary() == {
        "num_steps": 23,
        "support": {name.removeprefix("support_"): value for name, value in metrics.items()},
    }
    assert search.progress_note() == f"{100 * share:.0f} % of units entered"


def released_search(model, batches, lr, interval, batches_per_epoch):
    """adamw_spp.py, mock.py and engine.py written out: masks on q, k and v and before the activation; weights frozen.

    Returns M, V, Gamma and S by pair name.
    """
    masks = {}
    for i, block in enumerate(model.blocks):
        masks[f"blocks.{i}.attn"] = torch.ones(2 * block.attn.head_dim, requires_grad=True)
        masks[f"blocks.{i}.mlp"] = torch.ones(block.mlp.fc1.out_features, requires_grad=True)
    state = {name: [torch.zeros(len(mask), dtype=torch.float64) for _ in range(5)] for name, mask in masks.items()}
    for k, (images, labels) in enumerate(batches, start=1):
        handles = []
        for i, block in enumerate(model.blocks):
            attn, hidden = masks[f"blocks.{i}.attn"], masks[f"blocks.{i}.mlp"]
            qk, v = (half.repeat(block.attn.num_heads) for half in attn.chunk(2))
            every = torch.cat([qk, qk, v])
            handles.append(block.attn.qkv.register_forward_hook(lambda m, a, out, z=every: out * z))
            handles.append(block.mlp.fc1.register_forward_hook(lambda m, a, out, z=hidden: out * z))
        gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(masks.values()))
        for handle in handles:
            handle.remove()
        for (name, mask), gradient in zip(masks.items(), gradients, strict=True):
            first, second, value, gamma, seen = state[name]
            g = gradient.double()
            first.mul_(0.9).add_(0.1 * g)
            second.mul_(0.999).add_(0.001 * g * g)
            eta = lr / (1 - 0.9**k)
            with torch.no_grad():
                mask -= (eta * first / ((second / (1 - 0.999**k)).sqrt() + 1e-4)).float()
            value += eta * (mask.detach().double() - gamma)
            gamma.copy_(((1 - 3 / value.abs()).clamp(min=0) * value).clamp(min=0))
            if (k - 1) % batches_per_epoch % interval == 0:
                seen += gamma != 0
    found = {}
    for name, mask in masks.items():
        _, _, value, gamma, seen = state[name]
        parts = [tensor.detach().chunk(2) for tensor in (mask, value, gamma, seen)]
        if name.endswith("mlp"):
            found[name] = (mask.detach(), value, gamma, seen)
        else:
            found[f"{name}.qk"], found[f"{name}.vo"] = (tuple(part[half] for part in parts) for half in (0, 1))
    return found


def test_the_released_search_is_the_released_one(tiny):
    """200 steps in one epoch of the cosine, by default hyper-parameters that let units enter in them."""
    model = tiny.build()
    model.requires_grad_(False)
    masked = MaskedModel(model, find_pairs(model), at_first_maps=True)
    batches = tiny.batches(masked, 200)
    config = SPPConfig(preset="released", lr=0.02, released_quirks=True, occupancy_interval=7)
    search = tiny.search(config, masked, 200)
    search.on_epoch_start(0, 1)
    tiny.run(search, batches)
    num_entered = 0
    for name, expected in released_search(tiny.build(), batches, 0.02, 7, 200).items():
        state = search.dynamics.state_of(name)
        for key, value in zip(("M", "V", "Gamma", "S"), expected, strict=True):
            torch.testing.assert_close(state[key].double(), value.double(), rtol=1e-3, atol=1e-4)
        num_entered += int((expected[2] > 0).sum())
    assert num_entered > 0


def gradients_of_masks(model, masks, images, labels):
    """On the queries, on the values before the projection, and behind the activation: the paper's places."""
    handles = []
    for i, block in enumerate(model.blocks):
        heads = block.attn.num_heads
        query = masks[f"blocks.{i}.attn.qk"].repeat(heads)
        every = torch.cat([query, torch.ones(2 * len(query))])
        value, hidden = masks[f"blocks.{i}.attn.vo"].repeat(heads), masks[f"blocks.{i}.mlp"]
        handles.append(block.attn.qkv.register_forward_hook(lambda m, a, out, z=every: out * z))
        handles.append(block.attn.proj.register_forward_pre_hook(lambda m, a, z=value: a[0] * z))
        handles.append(block.mlp.fc2.register_forward_pre_hook(lambda m, a, z=hidden: a[0] * z))
    found = torch.autograd.grad(F.cross_entropy(model(images), labels), list(masks.values()))
    for handle in handles:
        handle.remove()
    return {name: gradient.double() for name, gradient in zip(masks, found, strict=True)}


def textbook_search(model, masks, batches, lr, kappa, lam, rho):
    """Equation by equation as in the paper: V moves by the masks before the step."""
    value, gamma = ({name: torch.zeros(len(mask)).double() for name, mask in masks.items()} for _ in range(2))
    for images, labels in batches:
        gradients = gradients_of_masks(model, masks, images, labels)
        for name, mask in masks.items():
            gap = mask.detach().double() - gamma[name]
            value[name] += lr * rho * gap
            with torch.no_grad():
                mask -= (kappa * lr * (gradients[name] + rho * gap)).float()
            gamma[name] = kappa * value[name].sign() * (value[name].abs() - lam).clamp(min=0)
    return value, gamma


def priced_search(model, masks, costs, batches, num_measured, lr, kappa, lam, rho, momentum, eta):
    """As docs/method.md has it: the first batches measure the scale of the gradient on the attention."""
    value, gamma, average = ({name: torch.zeros(len(m)).double() for name, m in masks.items()} for _ in range(3))
    scales = []
    for number, (images, labels) in enumerate(batches):
        gradients = gradients_of_masks(model, masks, images, labels)
        if number < num_measured:
            scales.append(torch.cat([g for name, g in gradients.items() if "attn" in name]).abs().mean())
            continue
        k, scale = number - num_measured + 1, sum(scales) / len(scales)
        for name, mask in masks.items():
            gap = mask.detach().double() - gamma[name]
            pull = gradients[name] / (scale * costs[name]) + rho * gap
            average[name] = momentum * average[name] + (1 - momentum) * pull
            with torch.no_grad():
                mask -= (lr * average[name] / (1 - momentum**k)).float()
            value[name] += eta * (mask.detach().double() - gamma[name])
            gamma[name] = kappa * (value[name] - lam).clamp(min=0)
    return value, gamma


@pytest.mark.parametrize("preset", ["textbook", "priced"])
def test_the_other_presets_are_their_recurrences_for_200_steps(tiny, preset):
    masked, model = frozen(tiny), tiny.build()
    batches = tiny.batches(masked, 200)
    masks = {pair.name: torch.ones(pair.size, requires_grad=True) for pair in masked.pairs}
    if preset == "textbook":
        hyper = {"lr": 0.04, "kappa": 1.2, "lam": 0.83, "rho": 0.9}
        value, gamma = textbook_search(model, masks, batches, **hyper)
    else:
        hyper = {"lr": 0.03, "kappa": 1.0, "lam": 0.4, "rho": 3.0, "momentum": 0.9, "eta": 0.011}
        prices = {pair.name: torch.full((pair.size,), float(pair.macs_per_unit)) for pair in masked.pairs}
        mean = torch.cat([price for name, price in prices.items() if "attn" in name]).mean()
        costs = {name: (price / mean).double() for name, price in prices.items()}
        value, gamma = priced_search(model, masks, costs, batches, 20, **hyper)
    search = tiny.search(SPPConfig(preset=preset, **hyper), masked, 200)
    search.on_epoch_start(0, 1)
    tiny.run(search, batches)
    for name, mask in masks.items():
        state = search.dynamics.state_of(name)
        for key, expected in (("M", mask.detach()), ("V", value[name]), ("Gamma", gamma[name])):
            torch.testing.assert_close(state[key].double(), expected.double(), rtol=1e-3, atol=1e-4)
    entered = torch.cat(list(gamma.values())) != 0
    assert 0 < int(entered.sum()) < len(entered)


def test_a_search_in_which_nothing_enters_warns(tiny):
    search = tiny.search(SPPConfig(lam=1e6), frozen(tiny), 12)
    tiny.run(search, tiny.batches(search.masked, 12))
    with pytest.warns(UserWarning, match=r"^no unit entered the support in 10 steps: .*lower method\.lam"):
        assert search.summary()["support"]["all"] == 0


def searched_path(masked, num_steps=12):
    """A path on which only some units have entered, at few different times."""
    dynamics = build_optimizer(SPPConfig(eta=0.3), masked.masks, num_steps)
    generator = torch.Generator().manual_seed(0)
    slopes = {name: torch.randn(len(mask), generator=generator) for name, mask in masked.masks.items()}
    for step in range(num_steps):
        for name, mask in masked.masks.items():
            mask.grad = slopes[name].clone()
        dynamics.step()
        if step % 4 == 0:
            dynamics.sample_occupancy()
    return SolutionPath.from_optimizer(dynamics, masked.pairs)


def test_the_released_selection_adds_what_ties_with_the_last_unit_and_nothing_else(tiny):
    path = searched_path(tiny.masked())
    mended, quirky = (SPPConfig(score="S", scope="family", released_quirks=quirks) for quirks in (False, True))
    num_added = 0
    for size in (0.8, 0.6, 0.4):
        off, on = (tiny.select(config, path, "units", size) for config in (mended, quirky))
        assert all(
            torch.equal(off[name], mask) for name, mask in path.masks(units=size, scope="family", score="S").items()
        )
        for family in ("attn", "mlp"):
            names = [name for name in off if family in name]
            counts, was_kept, is_kept = (torch.cat([values[name] for name in names]) for values in (path.S, off, on))
            added = is_kept & ~was_kept
            assert (was_kept <= is_kept).all()
            assert len(counts[added].unique()) <= 1
            assert not ((counts == counts[added].max()) & ~is_kept).any() if added.any() else True
            num_added += int(added.sum())
    assert num_added > 0


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["vit", "swin"])
def test_the_released_scale_is_all_that_changes_in_a_member(tiny, name, per_head):
    masked = tiny.masked(name, per_head=per_head)
    masks = {}
    for index, pair in enumerate(masked.pairs):
        heads = torch.zeros(
            pair.num_heads if pair.per_head else 1, pair.size // (pair.num_heads if pair.per_head else 1)
        )
        heads[:, : 1 + index % 3] = 1
        masks[pair.name] = heads.flatten().bool()
    off, on = compact(masked.model, masks).eval(), compact(masked.model, masks).eval()
    assert tiny.finish_member(SPPConfig(), off, 0) == {}
    assert tiny.finish_member(SPPConfig(released_quirks=True), on, 0) == {"is_scaled_by_kept_width": True}
    assert all(torch.equal(value, on.state_dict()[key]) for key, value in off.state_dict().items())
    images = tiny.batches(masked, 1, seed=5)[0][0]
    with torch.no_grad():
        masked.set_masks(masks)
        torch.testing.assert_close(off(images), masked(images), rtol=1e-5, atol=1e-5)
        # Queries that are longer by sqrt(width / kept width) make up for the scale of the full head.
        longer = {}
        for pair in masked.pairs:
            num_heads = pair.num_heads if pair.per_head else 1
            widest = masks[pair.name].view(num_heads, -1).sum(1).max()
            longer[pair.name] = masks[pair.name] * ((pair.size / num_heads / widest) ** 0.5 if pair.kind == "qk" else 1)
        masked.set_masks(longer)
        torch.testing.assert_close(on(images), masked(images), rtol=1e-5, atol=1e-5)
        assert (on(images) - off(images)).abs().max() > 1e-3


def test_a_scale_by_no_width_is_refused_in_one_line(tiny):
    model = tiny.build()
    none = torch.zeros(8, dtype=torch.bool)
    quirky = SPPConfig(released_quirks=True)
    with pytest.raises(
        ValueError, match=r"^masks: blocks\.1\.attn without a query-key unit .* method\.min_units=1"
    ) as caught:
        tiny.finish_member(quirky, compact(model, {"blocks.1.attn.qk": none}), 0)
    assert "\n" not in str(caught.value)
    without_heads = compact(model, {"blocks.1.attn.qk": none, "blocks.1.attn.vo": none})
    assert tiny.finish_member(quirky, without_heads, 0) == {"is_scaled_by_kept_width": True}


def test_the_distance_to_the_dense_network_is_scaled_where_it_has_a_gradient(tiny):
    """At the dense masks it has none; the scale is that of the gradient at masks of 0.9, which the search sets."""
    masked = tiny.masked()
    masked.model.requires_grad_(False)
    dense = copy.deepcopy(masked.model)
    search = tiny.search(SPPConfig(drive="kl", calibration_batches=2), masked, 20)
    scales = []
    for step, (images, _) in enumerate(tiny.batches(masked, 20)):
        search.before_forward()
        values = torch.cat([mask.detach() for mask in masked.masks.values()])
        if step < 3:
            assert torch.equal(values, torch.full_like(values, 0.9 if step < 2 else 1.0))
        wanted = dense(images).softmax(1)
        torch.nn.functional.kl_div(masked(images).log_softmax(1), wanted, reduction="batchmean").backward()
        if step < 2:
            attention = [masked.masks[pair.name].grad for pair in masked.pairs if pair.kind != "mlp"]
            scales.append(float(torch.cat(attention).abs().mean()))
        search.after_backward()
    assert search.dynamics.scale == pytest.approx(sum(scales) / 2, rel=1e-5)
    assert all(bool(mask.isfinite().all()) for mask in masked.masks.values())


def fisher_of_tokens(masked, batches):
    """F by hand, from what the second maps are given and queries are; labels as they are in the batches."""
    model, total = masked.model, {pair.name: torch.zeros(pair.size) for pair in masked.pairs}
    for images, labels in batches:
        seen = {}
        handles = [
            (block.attn.proj if kind == "vo" else block.mlp.fc2).register_forward_pre_hook(
                lambda module, args, key=(number, kind), seen=seen: seen.update({key: args[0]})
            )
            for number, block in enumerate(model.blocks)
            for kind in ("vo", "mlp")
        ]
        handles += [
            block.attn.qkv.register_forward_hook(
                lambda module, args, output, key=(number, "qk"), seen=seen: seen.update({key: output})
            )
            for number, block in enumerate(model.blocks)
        ]
        loss = F.cross_entropy(masked(images), labels)
        gradients = torch.autograd.grad(loss, list(seen.values()))
        for handle in handles:
            handle.remove()
        for (number, kind), gradient in zip(seen, gradients, strict=True):
            products = (seen[number, kind] * gradient * len(images)).flatten(0, -2)
            name = next(p.name for p in masked.pairs if p.name.startswith(f"blocks.{number}.") and p.kind == kind)
            size = total[name].numel()
            if kind != "mlp":
                heads = model.blocks[number].attn.num_heads
                products = products[:, : heads * size].view(-1, heads, size).sum(1)
            total[name] += products.square().mean(0) / len(batches)
    return total


def test_driven_by_curvature_units_enter_in_the_order_of_fisher_information_over_cost(tiny):
    config = SPPConfig(drive="curvature")
    masked = tiny.masked()
    (batch,) = tiny.batches(masked, 1)
    expected = fisher_of_tokens(masked, [batch])
    masked.model.requires_grad_(False)
    search = tiny.search(config, masked, 40)
    assert search.samples_targets
    assert config.samples_targets
    tiny.run(search, [batch] * 40)
    path = search.order({})
    worth = torch.cat([expected[pair.name].double() / pair.macs_per_unit for pair in masked.pairs])
    ordered = worth[path.unit_numbers(min_units=0)]
    assert len(ordered) == len(worth.unique()) > 20
    assert (ordered[1:] <= ordered[:-1] * 1.001).all()
    assert 0 < search.support()["all"] <= 1
    assert all(float(mask.detach().min()) >= 0 and float(mask.detach().max()) <= 1.5 for mask in masked.masks.values())


def test_a_search_by_curvature_goes_on_where_it_stopped(tiny):
    config, batches = SPPConfig(drive="curvature"), tiny.batches(tiny.masked(), 12)
    whole = tiny.search(config, frozen(tiny), 12)
    tiny.run(whole, batches)
    begun = tiny.search(config, frozen(tiny), 12)
    tiny.run(begun, batches[:5])
    resumed = tiny.search(config, frozen(tiny), 12)
    resumed.masked.set_masks({name: mask.detach() for name, mask in begun.masked.masks.items()})
    resumed.load_state_dict(copy.deepcopy(begun.state_dict()))
    tiny.run(resumed, batches[5:])
    assert_same_path(resumed.order({}), whole.order({}))


@pytest.mark.parametrize("further", [{"preset": "textbook"}, {"released_quirks": True}])
def test_curvature_drives_the_priced_preset_alone(further):
    with pytest.raises(ValueError, match=r"drive: 'curvature' is not allowed; allowed: loss or kl, but with preset="):
        SPPConfig(drive="curvature", **further)
