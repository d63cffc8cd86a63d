"""Language models small enough to be made anew in a test: two decoder layers, a vocabulary of 40."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_language_model(tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """make("llama" | "opt", **changes): a model of transformers, and the folder it was saved in; skips without it."""
    transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")
    import torch

    sizes = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
    own = {
        "llama": {"intermediate_size": 32, "num_key_value_heads": 2},
        "opt": {"ffn_dim": 32, "word_embed_proj_dim": 24, "dropout": 0.0, "pad_token_id": 1},
    }

    def make(kind: str, **changes: Any) -> tuple[Any, Path]:
        torch.manual_seed(0)
        special = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 64}
        configuration = transformers.AutoConfig.for_model(kind, **special, **{**sizes, **own[kind], **changes})
        model = transformers.AutoModelForCausalLM.from_config(configuration).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path / kind
        model.save_pretrained(folder, **({"max_shard_size": "10KB"} if changes.pop("sharded", False) else {}))
        return model, folder

    return make
