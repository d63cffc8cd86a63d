"""A small pruned network, and a Python that has no spp."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import spp

KWARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 4}

WITHOUT_SPP = """
import sys, pathlib
sys.path[:] = [place for place in sys.path if not (pathlib.Path(place or ".") / "spp").exists()]
import importlib.util
assert importlib.util.find_spec("spp") is None
"""


@pytest.fixture
def vit():
    """A ViT with random weights, large enough that every unit matters."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **KWARGS).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def masks(vit):
    """Masks that make the widths of its query-key and value heads differ."""
    generator = torch.Generator().manual_seed(1)
    share = {"qk": 0.5, "vo": 0.7, "mlp": 0.6}
    pairs = spp.find_pairs(vit)
    return {pair.name: torch.rand(pair.size, generator=generator) < share[pair.kind] for pair in pairs}


@pytest.fixture
def run_without_spp(tmp_path):
    """Runs Python code, in tmp_path, that cannot import spp."""

    def run(code: str, *words: str | Path) -> str:
        command = [sys.executable, "-c", WITHOUT_SPP + code, *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
