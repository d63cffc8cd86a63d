"""Perplexity against its definition."""

import math

import pytest
import torch

from spp.data.facts import DataFacts
from spp.plan.recipes import RecipeConfig
from spp.tasks.language import Language, window_losses

TASK = Language(DataFacts(name="text", samples="windows"))


def test_perplexity_of_uniform_logits_is_the_size_of_the_vocabulary():
    evaluator, tokens = TASK.evaluator(), torch.randint(0, 50, (4, 9))
    evaluator.update(torch.zeros(4, 9, 50), (tokens, tokens))
    values = evaluator.compute()
    assert values["perplexity"] == pytest.approx(50, rel=1e-6)
    assert TASK.describe(values, evaluator.num_samples)["perplexity"]["count"] == 4


def test_a_token_is_predicted_from_those_before_it():
    tokens = torch.tensor([[1, 2, 0]])
    logits = torch.full((1, 3, 4), -50.0)
    logits[0, 0, 2] = logits[0, 1, 0] = 50.0
    logits[0, 2, 3] = 50.0  # of what would follow the window nothing is asked
    assert float(window_losses(logits, tokens)) == pytest.approx(0.0, abs=1e-6)
    probabilities = torch.randn(1, 3, 4).softmax(-1)
    expected = -(math.log(probabilities[0, 0, 2]) + math.log(probabilities[0, 1, 0])) / 2
    assert float(window_losses(probabilities.log(), tokens)) == pytest.approx(expected, rel=1e-5)


def test_perplexity_is_the_exponential_of_the_mean_over_windows():
    evaluator = TASK.evaluator()
    for losses in ([1.0, 2.0], [6.0]):
        evaluator.add(torch.tensor(losses))
    assert evaluator.compute() == {"perplexity": pytest.approx(math.exp(3)), "loss": pytest.approx(3)}


def test_what_text_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"^mixup: 0.8 is not for text; allowed: 0; "):
        TASK.training_loss(RecipeConfig(epochs=1, batch_size=2, lr=1e-3, mixup=0.8))
    with pytest.raises(ValueError, match=r"^model: outputs of shape \(2, 10\) do not fit language; "):
        TASK.check_outputs(torch.zeros(2, 10), 2)


def test_the_distance_to_a_teacher_is_that_of_the_next_tokens():
    logits, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    own, wanted = ((each[:, :-1] / 2.0).double().softmax(-1) for each in (logits, teacher))
    expected = 4 * (wanted * (wanted / own).log()).sum(-1).mean()
    assert float(TASK.distillation_loss(logits, teacher, 2.0, "soft")) == pytest.approx(float(expected), rel=1e-4)
    likeliest = -logits[:, :-1].double().log_softmax(-1).gather(2, teacher[:, :-1].argmax(-1, keepdim=True)).mean()
    assert float(TASK.distillation_loss(logits, teacher, 1.0, "hard")) == pytest.approx(float(likeliest), rel=1e-5)
    assert float(TASK.distillation_loss(logits, logits, 1.0, "soft")) == pytest.approx(0.0, abs=1e-6)


def test_drawn_tokens_follow_what_the_network_expects_after_the_text():
    logits = torch.full((2, 4, 6), -100.0)
    following = torch.tensor([[3, 1, 5, 0], [2, 2, 4, 0]])
    logits.scatter_(2, following[..., None], 100.0)
    assert torch.equal(TASK.sample_targets(logits)[:, 1:], following[:, :-1])
