"""Stages of a small finished chain, to be done again under disturbance."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from spp.models.weights import WEIGHTS_FILE
from spp.store.atomic import write_json
from spp.store.store import Store

SMALL = [
    "data.num_train=500",
    *(f"{stage}.batch_size=32" for stage in ("dense", "update", "search", "prune", "finetune")),
]
"""14 batches an epoch, 2 of validation."""

RANDOM = [
    *SMALL,
    "dense.epochs=2",
    "dense.mixup=0.4",
    "dense.augment={hflip: 0.5}",
    "prune.epochs=2",
    "prune.interval=2",
    "finetune.epochs=2",
    "budget.values=[0.8,0.3]",
]
"""Two epochs, every source of random numbers (with the recipe's noise and stochastic depth), a member on the way."""


PLAIN = [
    *SMALL,
    "budget.values=[0.5]",
    "dense.drop_path=0",
    "dense.input_noise=0",
    "update.drop_path=0",
    "update.input_noise=0",
    "prune.drop_path=0",
    "prune.input_noise=0",
    "finetune.epochs=0",
]
"""No random numbers within a batch: processes that see different images cannot draw the same ones."""


OWN_CLASSES = [
    *("model=vit_micro", "model.head=new", "data=imagenet", "data.img_size=8", "data.val_fraction=0.25"),
    *("recipe=transfer", "dense.head_epochs=1", "dense.augment={}", "budget.values=[0.5]"),
    *(f"{stage}.batch_size=8" for stage in ("dense", "update", "search", "prune", "finetune")),
]


@dataclass(frozen=True)
class Undisturbed:
    """A finished store and one stage in it."""

    store: Store
    kind: str
    key: str

    def again(self, root: Path, **runtime) -> Store:
        """A copy of the store in which this stage is still to be done, with changes of its runtime."""
        shutil.copytree(self.store.root, root)
        store = Store(root)
        folder = store.stage_dir(self.kind, self.key)
        spec = store.spec(self.kind, self.key)
        shutil.rmtree(folder)
        folder.mkdir()
        spec["runtime"].update(runtime)
        write_json(folder / "spec.json", spec)
        return store

    def assert_same(self, store: Store) -> None:
        """The same artifacts to the bit, the same record, the same numbers but for times; and nothing left."""
        assert store.done(self.kind, self.key)["artifacts"] == self.store.done(self.kind, self.key)["artifacts"]
        rows, others = (which.stage_dir(self.kind, self.key) / "metrics.jsonl" for which in (store, self.store))
        assert rows.read_bytes() == others.read_bytes()
        expected, actual = (
            {name: value for name, value in which.summary(self.kind, self.key).items() if "seconds" not in name}
            for which in (self.store, store)
        )
        assert actual == expected
        left = {path.name for path in store.stage_dir(self.kind, self.key).iterdir()}
        assert left == {"spec.json", "provenance.json", "metrics.jsonl", "summary.json", "artifacts", "DONE"}


def chain(made_once: Callable[..., Path], name: str, words: list[str]) -> dict[str, Undisturbed]:
    """Run the chain once for all test processes; its stages by kind."""

    def make(root: Path) -> None:
        from spp.cli.main import main

        assert main(["run", "debug=fast", "logger=off", *words, f"paths.store={root}"]) == 0

    store = Store(made_once(name, make))
    plan = store.read_plan(store.latest() or "")
    return {stage.kind: Undisturbed(store, stage.kind, stage.key) for stage in plan.stages.values()}


@pytest.fixture(scope="session")
def random_chain(made_once: Callable[..., Path]) -> dict[str, Undisturbed]:
    """The stages of a chain that draws random numbers wherever it can."""
    return chain(made_once, "random", RANDOM)


@pytest.fixture(scope="session")
def plain_chain(made_once: Callable[..., Path]) -> dict[str, Undisturbed]:
    """The stages of a chain whose batches may be cut into shares."""
    return chain(made_once, "plain", PLAIN)


def _make_images(root):
    """Three classes of images, each of its own brightness."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 24), ("val", 6)):
        for number, name in enumerate(("dark", "grey", "bright")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = torch.randint(-40, 40, (8, 8, 3), generator=generator)
                pixels = (50 + 80 * number + noise).clamp(0, 255).to(torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")


@pytest.fixture(scope="session")
def digits_weights(finished):
    """The network of ten digits, as a checkpoint."""
    root, sweep = finished
    store = Store(root)
    (key,) = [stage.key for stage in store.read_plan(sweep).stages.values() if stage.kind == "dense"]
    return store.artifacts_dir("dense", key) / WEIGHTS_FILE


@pytest.fixture(scope="session")
def own_classes_words():
    """Of a chain whose dense stage trains a new head, one epoch alone and one with all."""
    return OWN_CLASSES


@pytest.fixture(scope="session")
def own_classes(made_once, own_classes_words, digits_weights):
    """The finished chain of three classes that starts at those weights."""
    images = made_once("images-of-three-classes", _make_images)
    return chain(
        made_once, "own-classes", [*own_classes_words, f"model.weights={digits_weights}", f"data.root={images}"]
    )


def _byte_tokenizer(transformers):
    """Of bytes, which begins every text with a token of its own, so that it knows 257."""
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, **{letter: number + 1 for number, letter in enumerate(alphabet)}}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")


@pytest.fixture(scope="session")
def given_language_model():
    """make("llama" | "opt", folder, **changes): save a language model with random weights and a tokenizer of bytes."""
    transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")
    own = {
        "llama": {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.2},
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 24, "dropout": 0.1, "pad_token_id": 1, "init_std": 0.2},
    }

    def make(kind, folder, **changes):
        sizes = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        further = {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(kind, **{**sizes, **further, **own[kind], **changes})
            model = transformers.AutoModelForCausalLM.from_config(config)
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder, max_shard_size="20KB")
        _byte_tokenizer(transformers).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def signals_at(monkeypatch):
    """Send this process SIGUSR2 at some of the boundaries, counted over all restarts, while submitit's handler
    (here: one that only exits, as submitit's does) is in place."""
    from spp.stages import fitting

    stops, calls, seen = set(), [], []
    boundary = fitting._Watch._boundary

    def counted(self, trainer, num_batches):
        if len(seen) in stops:
            stops.discard(len(seen))
            os.kill(os.getpid(), signal.SIGUSR2)
        seen.append((trainer.current_epoch, num_batches))
        boundary(self, trainer, num_batches)

    def requeue(number, frame):
        calls.append(number)
        sys.exit(-1)

    monkeypatch.setattr(fitting._Watch, "_boundary", counted)
    before = signal.signal(signal.SIGUSR2, requeue)
    yield lambda places: (stops.update(places), calls, seen)[1:]
    signal.signal(signal.SIGUSR2, before)
