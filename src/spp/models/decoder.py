"""A language model decoder layer by decoder layer: no more than one of them is in memory.

The model of transformers is built with a single decoder layer, whose weights are read from the safetensors files when
it is asked for. What surrounds the layers (embeddings, rotary angles, masks, final norm, head) is the model's own
code: its forward pass is stopped at the layer to learn what layers are called with, and the layer is replaced by what
is known of its output to learn the logits.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spp.models.causal import build_from
from spp.models.pretrained import CONFIG_FILE, INDEX_FILE, SINGLE_FILE, shards_of, weight_map_of
from spp.text import reason_of

INPUTS: Mapping[str, Mapping[str, str]] = {
    "llama": {
        "self_attn.q_proj": "attention",
        "self_attn.k_proj": "attention",
        "self_attn.v_proj": "attention",
        "self_attn.o_proj": "heads",
        "mlp.gate_proj": "mlp",
        "mlp.up_proj": "mlp",
        "mlp.down_proj": "hidden",
    },
    "opt": {
        "self_attn.q_proj": "attention",
        "self_attn.k_proj": "attention",
        "self_attn.v_proj": "attention",
        "self_attn.out_proj": "heads",
        "fc1": "mlp",
        "fc2": "hidden",
    },
}
"""By model_type the linears of a decoder layer, each with the name of the input that it reads."""


class Shards:
    """The weights of a model in safetensors files, read one by one.

    Args:
        folder: of the model.

    Raises:
        ValueError: one line, if a shard is missing or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        shards_of(folder)
        if (folder / INDEX_FILE).is_file():
            self.file_of = {name: folder / file for name, file in weight_map_of(folder).items()}
        else:
            with _opened(folder / SINGLE_FILE) as file:
                self.file_of = dict.fromkeys(file.keys(), folder / SINGLE_FILE)

    def shapes(self, names: Mapping[str, str]) -> dict[str, torch.Size]:
        """The shapes of the weights with these names, under the keys that `names` has for them; none is read."""
        found = {}
        for key, name in names.items():
            with _opened(self.file_of[name]) as weights:
                found[key] = torch.Size(weights.get_slice(name).get_shape())
        return found

    def read(self, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
        """One after the other the weights with these names, with the keys that `names` has for them; a file is opened
        once.

        Raises:
            ValueError: one line, if one is missing.
        """
        by_file: dict[Path, list[str]] = {}
        for key, name in names.items():
            if name not in self.file_of:
                raise ValueError(
                    f"model.weights: {name!r} is in none of the files; allowed: all weights of the model; download it "
                    "again"
                )
            by_file.setdefault(self.file_of[name], []).append(key)
        for file, keys in by_file.items():
            with _opened(file) as weights:
                for key in keys:
                    yield key, weights.get_tensor(names[key])


class DecoderModel:
    """A language model of which one decoder layer at a time is in memory.

    Args:
        folder: as transformers saves a model.
        dtype: numbers in which it computes.
        device: where it computes.

    Attributes:
        num_layers, hidden_size, vocab_size, num_heads, num_kv_heads: of the model.
        inputs: the linears of a decoder layer by name, each with the name of the input that it reads.

    Raises:
        ValueError: one line, if weights are missing or do not fit.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        import transformers

        configuration: Any = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        self.model_type: str = configuration.model_type
        self.inputs = INPUTS[self.model_type]
        self.num_layers: int = configuration.num_hidden_layers
        self.hidden_size: int = configuration.hidden_size
        self.vocab_size: int = configuration.vocab_size
        self.num_heads: int = configuration.num_attention_heads
        self.num_kv_heads: int = getattr(configuration, "num_key_value_heads", None) or self.num_heads
        self.max_length: int = configuration.max_position_embeddings
        self.dtype, self.device = dtype, device
        self.shards = Shards(folder)
        configuration.num_hidden_layers = 1
        configuration.use_cache = False
        model: Any = build_from(configuration, dtype).eval().requires_grad_(False)
        self._model = model
        self._layers: nn.ModuleList = model.get_decoder().layers
        names = {id(module): name for name, module in model.named_modules()}
        self._prefix: str = names[id(self._layers)]
        self._stored_prefix = self._prefix_in_files()
        self._load_surroundings()
        self._model.to(device)
        self._arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def embed(self, tokens: Tensor) -> Tensor:
        """The input (batch, length, hidden_size) of the first decoder layer; tokens (batch, length).

        Also learns what layers are called with for a batch of this size.
        """
        caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append((args, kwargs))
            raise _LayersReachedError

        handle = self._layers[0].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with torch.no_grad():
                self._model(input_ids=tokens.to(self.device), use_cache=False)
        except _LayersReachedError:
            pass
        finally:
            handle.remove()
        args, kwargs = caught[0]
        hidden: Tensor = args[0] if args else kwargs.pop("hidden_states")
        self._arguments[len(tokens)] = args[1:], kwargs
        return hidden

    def load_layer(self, index: int) -> nn.Module:
        """Decoder layer `index`, on the device; it takes the place of the one before.

        Raises:
            ValueError: one line, if a weight is missing, has another shape, or is not finite.
        """
        layer = self._layers[0]
        names = {name: f"{self._stored_prefix}.{index}.{name}" for name in layer.state_dict()}
        own = layer.state_dict()
        for name, weight in self.shards.read(names):
            self._copy(own[name], weight, names[name])
        return layer

    def linears(self, layer: nn.Module) -> dict[str, nn.Linear]:
        """The linears of a decoder layer by name."""
        found = {name: layer.get_submodule(name) for name in self.inputs}
        return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}

    def layer_bytes(self) -> int:
        """What a decoder layer takes on the device."""
        return sum(parameter.nbytes for parameter in self._layers[0].parameters())

    def input_widths(self) -> dict[str, int]:
        """Features of the inputs of a layer's linears, by the names of the inputs."""
        linears = self.linears(self._layers[0])
        return {source: linears[name].in_features for name, source in self.inputs.items()}

    @torch.no_grad()
    def run_layer(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """The output of a layer for `hidden` (batch, length, hidden_size), of a batch size that `embed` has seen."""
        return self._call(layer, hidden)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) for the output of the last layer."""
        return self._call_head(hidden)

    @torch.enable_grad()
    def gradient_at_end(self, hidden: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of a loss of the logits at the output of the last layer, of the shape of `hidden`."""
        end = hidden.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(self._call_head(end)), end)
        return gradient

    @torch.enable_grad()
    def gradient_before(self, layer: nn.Module, hidden: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at the input `hidden` of a layer, where that at its output is known."""
        start = hidden.detach().requires_grad_()
        (before,) = torch.autograd.grad(self._call(layer, start), start, gradient)
        return before

    def _call(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        args, kwargs = self._arguments[len(hidden)]
        output = layer(hidden, *args, **kwargs)
        outputs: Tensor = output[0] if isinstance(output, tuple) else output
        return outputs

    def _call_head(self, hidden: Tensor) -> Tensor:
        tokens = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device)
        with _returns(self._layers[0], hidden):
            logits: Tensor = self._model(input_ids=tokens, use_cache=False).logits
        return logits

    def _prefix_in_files(self) -> str:
        """Where the layers lie in the files: some models were saved without the name of their body before it."""
        candidates = [self._prefix, self._prefix.partition(".")[2]]
        for prefix in candidates:
            if any(name.startswith(f"{prefix}.0.") for name in self.shards.file_of):
                return prefix
        raise ValueError(
            f"model.weights: there is no decoder layer in the files ({candidates[0]}.0); allowed: a model of type "
            f"{self.model_type}; use its folder"
        )

    def _load_surroundings(self) -> None:
        """Everything but the layers: embeddings, final norm, head."""
        start = f"{self._prefix}."
        body = self._prefix.removesuffix(self._stored_prefix)
        wanted = {name: name.removeprefix(body) for name in self._model.state_dict() if not name.startswith(start)}
        stored = {key: name if name in self.shards.file_of else key for key, name in wanted.items()}
        # A head that shares its numbers with the embeddings is in the files once.
        is_tied = bool(self._model.config.tie_word_embeddings)
        head = self._model.get_output_embeddings()
        tied = {name for name, module in self._model.named_modules() if module is head} if is_tied else set()
        names = {
            key: name
            for key, name in stored.items()
            if not (key.rpartition(".")[0] in tied and name not in self.shards.file_of)
        }
        parameters = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        for key, weight in self.shards.read(names):
            self._copy(parameters[key], weight, names[key])
        self._model.tie_weights()

    @torch.no_grad()
    def _copy(self, own: Tensor, weight: Tensor, name: str) -> None:
        """Take a weight over.

        Raises:
            ValueError: one line, if it has another shape, or is not finite in the numbers of the model.
        """
        if own.shape != weight.shape:
            raise ValueError(
                f"model.weights: {name!r} has the shape {tuple(weight.shape)} and not {tuple(own.shape)}; allowed: "
                f"weights that fit {CONFIG_FILE}; download the model again"
            )
        own.copy_(weight)
        if not bool(own.isfinite().all()):
            raise ValueError(
                f"model.weights: {name!r} holds numbers that are not finite in {self.dtype}; allowed: finite numbers; "
                "use a wider model.dtype, or download the model again"
            )


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A file of weights.

    Raises:
        ValueError: one line, if it, or a weight in it, cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"model.weights: {str(file)!r} cannot be read ({reason_of(error)}); allowed: safetensors; download it again"
        ) from None


class _LayersReachedError(Exception):
    """The forward pass has come to the decoder layers."""


@contextmanager
def _returns(layer: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Let a layer return what is known already."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return hidden

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
