"""BERT of Hugging Face with a head for a whole text, called as tasks call networks: tokens in, scores out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from spp.model_files import ModelFiles
from spp.models.config import TRAIN, ModelConfig
from spp.models.pretrained import CONFIG_FILE, SINGLE_FILE
from spp.models.weights import load_weights, refuse_other_head
from spp.text import reason_of

_HEAD, _POOLER = "classifier.", "bert.pooler."
_NOT_NEEDED = ("cls.", "bert.embeddings.position_ids")
"""Beginnings of names in files of BERT that this network has no place for: heads of pretraining, and a buffer."""


class BertNetwork(BertForSequenceClassification):  # type: ignore[misc]
    """BertForSequenceClassification, with its names of weights, that puts out the scores alone."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Scores (texts, outputs).

        Args:
            input_ids: tokens, (texts, length).
            attention_mask: likewise, 0 where a text is padded.
            token_type_ids: likewise, 1 for the tokens of the second text of a pair.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        scores: Tensor = super().forward(**inputs).logits
        return scores

    def get_classifier(self) -> nn.Module:
        """The head, as networks of timm tell it."""
        head: nn.Module = self.classifier
        return head


def build(
    config: ModelConfig, inputs: Mapping[str, Any], num_outputs: int | None, runtime: Mapping[str, Any]
) -> BertNetwork:
    """The network, freshly initialised or with given weights; the default device decides where.

    Args:
        config: sizes in kwargs, those of BERT-Base where they are not said.
        inputs: what the data ask for: vocab_size and length.
        num_outputs: width of the head.
        runtime: of given weights the folder or the archive that they lie in.

    Raises:
        ValueError: one line, if sizes contradict the data, transformers refuses them, or weights do not fit.
    """
    vocabulary, length = inputs["vocab_size"], inputs["length"]
    arguments = {"vocab_size": vocabulary, **config.kwargs}
    if arguments["vocab_size"] != vocabulary:
        raise ValueError(
            f"data.tokenizer: it has {vocabulary} tokens, and the network {arguments['vocab_size']}; allowed: the "
            "tokenizer of the network's weights; set data.tokenizer to where model.weights is"
        )
    try:
        made = BertConfig(**arguments, num_labels=num_outputs, example_length=length)
        network = BertNetwork(made)
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"model.kwargs: {arguments} do not fit bert ({reason}); allowed: the arguments of BertConfig in "
            "transformers; correct model.kwargs"
        ) from None
    if length > made.max_position_embeddings:
        raise ValueError(
            f"data.length: {length} is not allowed; allowed: up to the {made.max_position_embeddings} positions of the "
            "network; use fewer, or a larger model.kwargs.max_position_embeddings"
        )
    if config.weights != TRAIN:
        _load(network, runtime, config)
    return network


def _load(network: BertNetwork, runtime: Mapping[str, Any], config: ModelConfig) -> None:
    """Put the weights of a file in; with a new head, pooler and head may be missing, and the head is passed over."""
    files, is_new = ModelFiles(Path(runtime["folder"])), config.has_new_head
    source = f"model.weights: {SINGLE_FILE} of {str(files.path)!r}"
    if f"sha256:{files.digest((CONFIG_FILE, SINGLE_FILE), 'model.weights')}" != config.weights:
        raise ValueError(f"{source} has changed since it was planned; allowed: the same file; run again")
    try:
        stored = load(files.read(SINGLE_FILE, "model.weights"))
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(f"{source} cannot be read ({reason}); allowed: safetensors; download it again") from None
    weights = _named(stored)
    if is_new:
        kept = {name: value for name, value in weights.items() if not name.startswith(_HEAD)}
        own = {name: value for name, value in network.state_dict().items() if name.startswith((_HEAD, _POOLER))}
        weights = {**own, **kept}
    elif not any(name.startswith(_HEAD) for name in weights):
        raise ValueError(f"{source} has no head; allowed: a BERT that classifies; train a head by model.head=new")
    else:
        refuse_other_head(network, weights, str(files.path))
    load_weights(network, weights, str(files.path))


def _named(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under this network's names: files of an encoder alone have none before them."""
    is_alone = not any(name.startswith("bert.") for name in stored)
    named = {f"bert.{name}" if is_alone and not name.startswith(_HEAD) else name: one for name, one in stored.items()}
    # Old files call the numbers of a norm gamma and beta.
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for before, now in old.items():
        named = {name.replace(before, now): one for name, one in named.items()}
    return {name: one for name, one in named.items() if not name.startswith(_NOT_NEEDED)}
