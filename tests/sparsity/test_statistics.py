import pytest
import torch

from spp.sparsity.statistics import InputStats


def test_gram_and_norms_are_those_of_all_tokens_together():
    x = torch.randn(3, 50, 300, generator=torch.Generator().manual_seed(0))
    stats = InputStats(300)
    for batch in x:
        stats.add(batch)
    tokens = x.reshape(-1, 300).double()
    assert stats.num_tokens == 150
    assert stats.gram.dtype == torch.float32
    torch.testing.assert_close(stats.gram.double(), tokens.T @ tokens, rtol=1e-5, atol=1e-4)
    assert torch.equal(stats.gram, stats.gram.T)
    torch.testing.assert_close(stats.norms.double(), tokens.norm(dim=0), rtol=1e-5, atol=1e-5)


def test_sums_go_on_after_the_gram_matrix_was_looked_at_or_loaded():
    x = torch.randn(2, 40, 200, generator=torch.Generator().manual_seed(1))
    stats, whole = InputStats(200), InputStats(200)
    whole.add(x)
    stats.add(x[0])
    assert stats.gram.shape == (200, 200)
    resumed = InputStats(200)
    resumed.load_state_dict(stats.state_dict())
    resumed.add(x[1])
    torch.testing.assert_close(resumed.gram, whole.gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(resumed.norms, whole.norms)


def test_half_precision_is_summed_in_single():
    x = torch.full((5000, 2), 0.1, dtype=torch.bfloat16)
    stats = InputStats(2)
    stats.add(x)
    torch.testing.assert_close(stats.gram[0, 1].double(), 5000 * x[0, 0].double() ** 2, rtol=1e-3, atol=0)


def test_only_what_is_needed_is_kept():
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    norms, batches = InputStats(8, ["norms"]), InputStats(8, ["batches"])
    for part in x.chunk(3):
        norms.add(part)
        batches.add(part)
    torch.testing.assert_close(norms.norms, x.norm(dim=0))
    torch.testing.assert_close(batches.batch_norms, torch.stack([part.norm(dim=0) for part in x.chunk(3)]))
    for stats, missing in ((norms, "gram"), (norms, "batch_norms"), (batches, "gram")):
        with pytest.raises(ValueError, match=r"^stats: .* is not there; allowed: what its needs name"):
            getattr(stats, missing)


def test_words_and_widths_that_are_wrong_are_refused():
    with pytest.raises(ValueError, match=r"^needs: 'hessian' is not allowed; allowed: norms, gram, batches"):
        InputStats(8, ["hessian"])
    with pytest.raises(ValueError, match=r"^x: 7 features are not allowed; allowed: 8"):
        InputStats(8).add(torch.zeros(3, 7))
