"""A pruned Llama in a folder: it loads by transformers, generates, and puts out what it put out before."""

import json
import subprocess
import sys

import pytest
import torch

import spp
from spp.deploy.source import facts_of

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")


@pytest.fixture
def llama():
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.window_length = 16
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    return model


@pytest.fixture
def tokens():
    return torch.randint(32, (2, 12), generator=torch.Generator().manual_seed(3))


def masks_of(llama, keep):
    generator, pairs = torch.Generator().manual_seed(1), spp.find_pairs(llama, per_head=True)
    return {pair.name: torch.rand(pair.size, generator=generator) < keep for pair in pairs}


def uniform(llama):
    """One kv group gone from every layer, another one each, and half of the MLP."""
    masks = masks_of(llama, 2)
    for layer in range(2):
        masks[f"model.layers.{layer}.self_attn.vo"].view(3, 8)[layer : layer + 2] = False
        masks[f"model.layers.{layer}.mlp"][layer::2] = False
    return masks


def deployable(llama):
    """The attention of one layer gone, and MLPs of two widths."""
    masks = masks_of(llama, 2)
    masks["model.layers.0.self_attn.vo"][:] = False
    masks["model.layers.0.mlp"][8:] = False
    masks["model.layers.1.mlp"][16:] = False
    return masks


def test_equal_layers_of_whole_groups_load_in_stock_code(llama, tokens, tmp_path):
    small = spp.compact(llama, uniform(llama))
    spp.save_member(small, tmp_path / "small")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert (config["model_type"], config["intermediate_size"]) == ("llama", 20)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (2, 1, 8)
    assert not (tmp_path / "small" / "modeling_spp_llama.py").exists()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert type(loaded) is transformers.LlamaForCausalLM
    torch.testing.assert_close(loaded(input_ids=tokens).logits, small(input_ids=tokens).logits, atol=1e-5, rtol=1e-4)


def test_other_shapes_load_with_the_file_beside_them_and_without_spp(llama, tokens, tmp_path):
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    wanted = {}
    for form, masks in {"deployable": deployable(llama), "research": masks_of(llama, 0.6)}.items():
        small = spp.compact(llama, masks)
        folder = spp.save_member(llama, masks, tmp_path / form, licence="apache-2.0")
        made = small.generate(tokens, **options)
        loaded = spp.load(folder)
        expected = small(input_ids=tokens).logits
        torch.testing.assert_close(loaded(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(loaded.generate(tokens, **options), made)
        wanted[str(folder)] = made.tolist()

    program = (
        "import sys, json, torch, transformers\n"
        "folders, tokens, options = map(json.loads, sys.argv[1:])\n"
        "for folder in folders:\n"
        "    model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()\n"
        "    print(json.dumps(model.generate(torch.tensor(tokens), **options).tolist()))\n"
        "assert 'spp' not in sys.modules\n"
    )
    arguments = [json.dumps(value) for value in (list(wanted), tokens.tolist(), options)]
    environment = {"PATH": "", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == list(wanted.values())


def test_an_altered_file_is_refused(llama, tmp_path):
    folder = spp.save_member(llama, masks_of(llama, 0.6), tmp_path / "small")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("40", "41", 1))
    with pytest.raises(ValueError, match=r"config.json' was altered"):
        spp.load(folder)


def test_the_tokenizer_of_a_given_model_comes_with_its_members(llama, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "tokenizer.json").write_text("{}")
    (tmp_path / "given" / "other.json").write_text("{}")
    architecture = {"model": {"name": "llama", "kwargs": {}, "weights": "sha256:0"}, "samples": {}}
    facts = facts_of(architecture, origin={}, runtime={"pretrained_folder": str(tmp_path / "given")})
    small = spp.compact(llama, uniform(llama))
    spp.save_member(small, tmp_path / "small", tokenizer_files=facts.tokenizer_files)
    assert (tmp_path / "small" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "small" / "other.json").exists()
    (tmp_path / "small" / "tokenizer.json").write_text("{ }")
    with pytest.raises(ValueError, match=r"tokenizer\.json' was altered"):
        spp.load(tmp_path / "small")
