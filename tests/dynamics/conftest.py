"""Hand-made pairs, masks and gradients."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from spp.structure.masked import Masks
from spp.structure.pair import Pair

MakeMasks = Callable[..., Masks]

# A busy machine is no error.
settings.register_profile("dynamics", deadline=None)
settings.load_profile("dynamics")


def make_pair(name: str, kind: str, size: int, macs: float, params: float = 1.0, model_cost=None) -> Pair:
    return Pair(
        name=name,
        kind=kind,
        size=size,
        params_per_unit=params,
        macs_per_unit=macs,
        num_heads=1 if kind == "mlp" else 2,
        per_head=False,
        module=name.rsplit(".", 1)[0],
        model_cost=model_cost,
    )


@pytest.fixture
def pairs() -> list[Pair]:
    """Two blocks' worth of units with unequal prices."""
    return [
        make_pair("b.0.attn.qk", "qk", 3, 60.0, 20),
        make_pair("b.0.attn.vo", "vo", 4, 40.0, 18),
        make_pair("b.0.mlp", "mlp", 6, 10.0, 5),
        make_pair("b.1.mlp", "mlp", 2, 30.0, 5),
    ]


@pytest.fixture
def make_masks(pairs: list[Pair]) -> MakeMasks:
    """Masks of those pairs at `start`, as a MaskedModel gives them."""

    def make(dtype: torch.dtype = torch.float64, start: float = 1.0) -> Masks:
        masks = Masks((p.name, nn.Parameter(torch.full((p.size,), start, dtype=dtype))) for p in pairs)
        masks.pairs = pairs
        return masks

    return make


@pytest.fixture
def random_gradients(pairs: list[Pair]) -> Callable[[int, float], list[dict[str, Tensor]]]:
    """`num_steps` random gradients with a drift of their own for every unit."""

    def make(num_steps: int, size: float) -> list[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(3)

        def normal(num: int) -> Tensor:
            return torch.randn(num, generator=generator, dtype=torch.float64)

        drift = {p.name: normal(p.size) for p in pairs}
        return [{p.name: size * (drift[p.name] + normal(p.size)) for p in pairs} for _ in range(num_steps)]

    return make
