"""Distillation against the loss written out; timm's own intermediates stand for hidden states, and the attention
weights that transformers puts out for those that are compared."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from spp.data.facts import DataFacts
from spp.models.bert import BertNetwork
from spp.plan.recipes import RecipeConfig
from spp.stages.distillation import Distillation
from spp.structure.compact import compact
from spp.structure.find import find_pairs
from spp.structure.masked import MaskedModel
from spp.structure.tokens import drop_tokens
from spp.tasks.classification import Classification

VIT = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
TASK = Classification(DataFacts(name="digits", num_classes=4))


def vit(seed, **changes):
    """With weights of a size that makes every unit matter."""
    network, generator = VisionTransformer(**{**VIT, **changes}).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network


def recipe(**changes):
    values = {"distill_weight": 0.9, "distill_temperature": 2.0, "distill_hidden": 1.0, **changes}
    return RecipeConfig(epochs=1, batch_size=8, lr=1e-3, **values)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(5)
    return SimpleNamespace(
        images=torch.randn(8, 1, 8, 8, generator=generator), labels=torch.randint(4, (8,), generator=generator)
    )


def states_of(network, images):
    """What the first block is given and what every block puts out, by timm's own way to ask for them."""
    _, blocks = network.forward_intermediates(images, output_fmt="NLC", return_prefix_tokens=True)
    first = network.norm_pre(network._pos_embed(network.patch_embed(images)))
    return [first, *(torch.cat([prefix, patches], dim=1) for patches, prefix in blocks)]


def loss_of(student, teacher, values, batch):
    distillation = Distillation(student, teacher, values, TASK)
    outputs, lesson = distillation.show(student, batch.images)
    return distillation.mixed(F.cross_entropy(outputs, batch.labels), [outputs], lesson)


def outputs_distance(outputs, wanted):
    """At temperature 2."""
    p = (wanted / 2).softmax(1)
    return 4 * (p * (p.log() - (outputs / 2).log_softmax(1))).sum(1).mean()


BERT = {
    **{"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24},
    **{"max_position_embeddings": 12, "num_labels": 4},
}


def bert(seed):
    torch.manual_seed(seed)
    network = BertNetwork(BertConfig(**BERT)).eval()
    for layer in network.bert.encoder.layer:
        for linear in (layer.attention.self.query, layer.attention.self.key):
            nn.init.normal_(linear.weight)
            nn.init.normal_(linear.bias)
    return network


@pytest.fixture
def texts():
    """Four texts, three of them padded, with their classes."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([[9], [4], [1], [7]])
    inputs = {
        "input_ids": torch.randint(20, (4, 9), generator=generator),
        "attention_mask": (torch.arange(9) < lengths).long(),
    }
    return inputs, torch.randint(4, (4,), generator=generator)


def eager(network):
    """The same weights in transformers' own class, which writes its attention weights out."""
    made = BertForSequenceClassification._from_config(network.config, attn_implementation="eager").eval()
    made.load_state_dict(network.state_dict())
    return made


def test_the_loss_is_leaps(texts):
    """0.1 cross entropy + 0.9 (outputs at temperature 2 + hidden states + attention weights), all of them means."""
    (inputs, labels), student, teacher = texts, bert(0), bert(1)
    distillation = Distillation(student, teacher, recipe(distill_attention=1.0), TASK)
    outputs, lesson = distillation.show(student, inputs)
    loss = distillation.mixed(F.cross_entropy(outputs, labels), [outputs], lesson)
    asked = {**inputs, "output_hidden_states": True, "output_attentions": True}
    stock = eager(student)
    own, wanted = stock(**asked), eager(teacher)(**asked)
    distances = [
        [(one - other.detach()).square().mean() for one, other in zip(own[part], wanted[part], strict=True)]
        for part in ("hidden_states", "attentions")
    ]
    assert [len(each) for each in distances] == [4, 3]
    hidden, attention = map(sum, distances)
    assert attention > 0.1
    distance = outputs_distance(own.logits, wanted.logits.detach()) + hidden + attention
    expected = 0.1 * F.cross_entropy(own.logits, labels) + 0.9 * distance
    torch.testing.assert_close(loss, expected)
    tripled = Distillation(student, teacher, recipe(distill_attention=3.0), TASK)
    more = tripled.mixed(F.cross_entropy(outputs, labels), [outputs], lesson)
    torch.testing.assert_close(more - loss, 1.8 * attention)
    loss.backward()
    expected.backward()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, stock.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_attention_weights_of_timm_are_those_behind_its_softmax(batch):
    student, teacher = vit(0), vit(1)
    _, lesson = Distillation(student, teacher, recipe(distill_attention=1.0), TASK).show(student, batch.images)
    for number, network in enumerate((student, teacher)):
        seen = []
        for block in network.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
        network(batch.images)
        assert len(seen) == len(lesson.attentions) == 3
        for weights, expected in zip(lesson.attentions, seen, strict=True):
            torch.testing.assert_close(weights[number], expected)


@pytest.mark.parametrize("name", ["ViT", "Dinov2"])
def test_attention_weights_of_vision_encoders_of_transformers_are_those_that_it_puts_out(batch, name):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 4}
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{name}Config")(**sizes, **shape, attn_implementation="eager")
        networks.append(getattr(transformers, f"{name}ForImageClassification")(config).eval())
        for linear in networks[-1].modules():
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight)
    _, lesson = Distillation(*networks, recipe(distill_attention=1.0), TASK).show(networks[0], batch.images)
    for number, network in enumerate(networks):
        expected = network(batch.images, output_attentions=True).attentions
        for weights, other in zip(lesson.attentions, expected, strict=True):
            torch.testing.assert_close(weights[number], other)


def test_masked_and_compact_students_have_the_attention_weights_of_what_they_compute(texts):
    """Queries of a head whose masks are 0 let all tokens that are there weigh alike; so does a head that is gone."""
    (inputs, _), model, teacher = texts, bert(0), bert(1)
    masked = MaskedModel(model, find_pairs(model, per_head=True))
    generator = torch.Generator().manual_seed(3)
    masks = {pair.name: torch.rand(pair.size, generator=generator) < 0.6 for pair in masked.pairs}
    for pair in masked.pairs:
        if pair.kind != "mlp":
            masks[pair.name].view(4, -1)[[0, 2]] = False
            masks[pair.name].view(4, -1)[[1, 3], :2] = True
    first = next(pair.name for pair in masked.pairs if pair.kind == "qk")
    masks[first][:] = False
    masked.set_masks(masks)
    small = compact(model, masks).eval()
    lessons = [
        Distillation(student, teacher, recipe(distill_attention=1.0), TASK).show(student, inputs)[1]
        for student in (masked, small, model)
    ]
    for whole, cut, bare in zip(*(lesson.attentions for lesson in lessons), strict=True):
        torch.testing.assert_close(whole[0], cut[0])
        torch.testing.assert_close(whole[1], bare[1])
        assert (whole[0] - bare[0]).abs().max() > 0.1
    assert lessons[0].attentions[0][0][2, 0, 0].tolist() == [1, *[0] * 8]
    torch.testing.assert_close(lessons[0].attentions[0][0][1, 0, 0], torch.tensor([0.25] * 4 + [0.0] * 5))


def test_attention_weights_without_some_tokens_are_over_those_that_are_left(batch):
    student, teacher = vit(0), vit(1)
    kept = {"blocks.1": [0, 1, 4, 5, 9], "blocks.2": [0, 4, 9]}
    drop_tokens(student, kept)
    _, lesson = Distillation(student, teacher, recipe(distill_attention=1.0), TASK).show(student, batch.images)
    seen = []
    for block in teacher.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, args, output: seen.append(output))
    teacher(batch.images)
    for (own, wanted), whole, tokens in zip(lesson.attentions, seen, [range(17), *kept.values()], strict=True):
        left = whole[..., list(tokens), :][..., list(tokens)]
        assert own.shape == wanted.shape
        torch.testing.assert_close(wanted, left / left.sum(-1, keepdim=True))


def test_the_loss_without_attention_weights(batch):
    student, teacher = vit(0), vit(1)
    loss = loss_of(student, teacher, recipe(), batch)
    outputs, wanted = student(batch.images), teacher(batch.images)
    states = zip(states_of(student, batch.images), states_of(teacher, batch.images), strict=True)
    hidden = [(own - other).square().mean() for own, other in states]
    assert len(hidden) == 4
    expected = 0.1 * F.cross_entropy(outputs, batch.labels) + 0.9 * (outputs_distance(outputs, wanted) + sum(hidden))
    torch.testing.assert_close(loss, expected)
    half = loss_of(student, teacher, recipe(distill_hidden=0.5), batch)
    torch.testing.assert_close(loss - half, 0.45 * sum(hidden))
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.blocks[0].mlp.fc1.weight.grad.abs().max() > 0


def test_masked_and_compact_students_have_the_states_of_what_they_compute(batch):
    """At masks of 0 and 1 both are one function, so they are equally far from the teacher."""
    model, teacher = vit(0), vit(1)
    masked = MaskedModel(model, find_pairs(model))
    generator = torch.Generator().manual_seed(3)
    masks = {pair.name: torch.rand(pair.size, generator=generator) < 0.5 for pair in masked.pairs}
    masked.set_masks(masks)
    small = compact(model, masks).eval()
    whole, cut, bare = (loss_of(student, teacher, recipe(), batch).detach() for student in (masked, small, model))
    torch.testing.assert_close(whole, cut)
    assert abs(float(whole - bare)) > 0.1


def test_states_without_some_tokens_are_compared_on_those_that_are_left(batch):
    student, teacher = vit(0), vit(1)
    kept = {"blocks.1": [0, 1, 4, 5, 9], "blocks.2": [0, 4, 9]}
    drop_tokens(student, kept)
    values = recipe()
    distillation = Distillation(student, teacher, values, TASK)
    _, lesson = distillation.show(student, batch.images)
    wanted = states_of(teacher, batch.images)
    expected = [wanted[0], wanted[1], wanted[2][:, kept["blocks.1"]], wanted[3][:, kept["blocks.2"]]]
    for state, other in zip(lesson.states, expected, strict=True):
        torch.testing.assert_close(state, other)
    assert [state.shape for state in lesson.own_states] == [state.shape for state in expected]


def test_every_block_of_a_swin_has_a_state(batch):
    torch.manual_seed(0)
    shape = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 4, "embed_dim": 8, "window_size": 2}
    networks = [SwinTransformer(**shape, depths=(1, 2), num_heads=(2, 4)).eval() for _ in range(2)]
    distillation = Distillation(*networks, recipe(), TASK)
    _, lesson = distillation.show(networks[0], batch.images)
    assert [tuple(state.shape) for state in lesson.own_states] == [(8, 4, 4, 8)] * 2 + [(8, 2, 2, 16)] * 2
    _, stages = networks[1].forward_intermediates(batch.images)
    torch.testing.assert_close(lesson.states[-1], stages[-1].permute(0, 2, 3, 1))


def test_the_teacher_sees_a_batch_once_however_many_heads_train(batch):
    student, teacher = vit(0), vit(1)
    seen = []
    teacher.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    values = recipe(distill_hidden=0.0)
    distillation = Distillation(student, teacher, values, TASK)
    outputs, lesson = distillation.show(student, batch.images)
    other = torch.randn(8, 4, generator=torch.Generator().manual_seed(7))
    loss = distillation.mixed(torch.tensor(3.0), [outputs, other], lesson)
    assert len(seen) == 1
    wanted = teacher(batch.images)
    expected = 0.1 * 3 + 0.9 * (outputs_distance(outputs, wanted) + outputs_distance(other, wanted))
    torch.testing.assert_close(loss, expected)


def test_a_shorter_student_is_held_against_the_first_blocks(batch):
    student, teacher = vit(0, depth=2), vit(1)
    _, lesson = Distillation(student, teacher, recipe(), TASK).show(student, batch.images)
    assert len(lesson.own_states) == len(lesson.states) == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"embed_dim": 32}, r"^distill_hidden: hidden states of shape \(8, 17, 16\) .*\(8, 17, 32\); allowed: "),
        ({"depth": 2}, r"^distill_hidden: 4 hidden states have no counterpart in the 3 of the teacher; allowed: "),
    ],
)
def test_a_teacher_whose_hidden_states_do_not_fit_is_refused(batch, changes, named):
    with pytest.raises(ValueError, match=named):
        loss_of(vit(0), vit(1, **changes), recipe(), batch)


def test_a_teacher_whose_heads_do_not_fit_is_refused(batch):
    with pytest.raises(
        ValueError, match=r"^distill_attention: 2 heads over 17 tokens .* teacher's 1 over 17; allowed: "
    ):
        loss_of(vit(0), vit(1, num_heads=1), recipe(distill_attention=1.0), batch)
    with pytest.raises(ValueError, match=r"^distill_attention: 3 attentions .* 2 of the teacher; allowed: "):
        loss_of(vit(0), vit(1, depth=2), recipe(distill_hidden=0.0, distill_attention=1.0), batch)


def test_attentions_with_more_than_products_are_refused():
    torch.manual_seed(0)
    shape = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 4, "embed_dim": 8, "window_size": 2}
    swin = SwinTransformer(**shape, depths=(1,), num_heads=(2,))
    with pytest.raises(ValueError, match=r"^distill_attention: a SwinTransformer is not allowed"):
        Distillation(swin, swin, recipe(distill_attention=1.0), TASK)


def test_hidden_states_of_an_unknown_network_are_refused():
    with pytest.raises(ValueError, match=r"^model: Sequential is not supported"):
        Distillation(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), vit(0), recipe(), TASK)


@pytest.mark.parametrize("field", ["distill_hidden", "distill_attention"])
def test_further_weights_need_a_weight_of_the_teacher(field):
    with pytest.raises(ValueError, match=rf"^{field}: 1\.0 .*0 without a distill_weight"):
        recipe(**{"distill_weight": 0.0, "distill_hidden": 0.0, field: 1.0})
    with pytest.raises(ValueError, match=rf"^{field}: -1\.0"):
        recipe(**{field: -1.0})
