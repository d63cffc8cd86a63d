"""The README.md of a member's folder: a model card as the Hugging Face Hub reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spp.plan.numbers import flops_unit, format_flops

_UNKNOWN_LICENCE = "not recorded; ask where the weights came from"


@dataclass(frozen=True, kw_only=True)
class MeasuredValue:
    """A number of a member beside that of the dense network.

    Attributes:
        name: what was measured, with its unit and circumstances.
        value: of the member.
        dense: of the dense network; None where it was not measured.
        count: how many samples, or repetitions, it rests on.
        of: what these are: "test images", "runs".
    """

    name: str
    value: float
    dense: float | None
    count: int
    of: str


def model_card(
    config: Mapping[str, Any], origin: Mapping[str, Any], measured: Sequence[MeasuredValue], licence: str | None
) -> str:
    """The text of the card.

    Args:
        config: what config.json says.
        origin: what origin.json says.
        measured: what is known of the member's quality and speed.
        licence: of the weights that it was cut from; None where that is not known.
    """
    library = "transformers" if "transformers" in config["spp"] else "timm"
    head = ["---", f"library_name: {library}", "pipeline_tag: image-classification", f"tags: [{library}, pruned, spp]"]
    head += [f"license: {licence}"] if licence else []
    return "\n".join(
        [
            *head,
            "---",
            f"# {config['architecture']}, pruned",
            "",
            _summary(config, origin),
            "",
            *_numbers(origin, measured),
            "",
            *_usage(config),
            "",
            *_origin(origin, licence),
            "",
        ]
    )


def numbers_and_origin(
    origin: Mapping[str, Any], measured: Sequence[MeasuredValue], licence: str | None
) -> tuple[list[str], list[str]]:
    """The lines of a card that say what a network costs and does, and where it comes from."""
    return _numbers(origin, measured), _origin(origin, licence)


def _summary(config: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    share = origin["macs"] / origin["dense"]["macs"] if "dense" in origin else None
    size = "" if share is None else f" It keeps {100 * share:.1f} % of the multiply-adds of the dense network."
    return (
        f"A compact network for {config['num_classes']} classes, cut out of {config['architecture']} by structured "
        f"pruning (query-key, value-projection and MLP channels).{size}"
    )


def _numbers(origin: Mapping[str, Any], measured: Sequence[MeasuredValue]) -> list[str]:
    dense = origin.get("dense", {})
    unit = flops_unit(dense.get("macs", origin["macs"]))
    flops = (format_flops(each["macs"], unit) if each else "" for each in (origin, dense))
    rows = [
        (f"multiply-adds ({unit})", *flops, ""),
        ("parameters (M)", _number(origin["params"] / 1e6), _number(dense["params"] / 1e6) if dense else "", ""),
        *((row.name, _number(row.value), _number(row.dense), f"{row.count} {row.of}") for row in measured),
    ]
    lines = ["| | this | dense | measured on |", "| --- | ---: | ---: | --- |"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _usage(config: Mapping[str, Any]) -> list[str]:
    channels, height, width = config["pretrained_cfg"]["input_size"]
    lines = [
        "## How to load it",
        "",
        f"`modeling_spp.py` in this folder needs torch, timm and {_more_needs(config)}. In Python, in this folder:",
        "",
        "```python",
        "import modeling_spp",
        "",
        'config, network = modeling_spp.read_config("."), modeling_spp.load(".")',
        f"transform = modeling_spp.transform(config)    # PIL image -> input of shape ({channels}, {height}, {width})",
        "```",
        "",
        'By timm: `timm.create_model("spp_member", pretrained=True, folder=".")` after `import modeling_spp`. By',
        'transformers: `AutoModelForImageClassification.from_pretrained(".", trust_remote_code=True)`.',
        "",
        "## How to run it as ONNX",
        "",
        "`spp export . --format onnx` writes `model.onnx` here; then, with onnxruntime and `transform` from above:",
        "",
        "```python",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        "(scores,) = session.run(None, {session.get_inputs()[0].name: transform(image)[None].numpy()})",
        "```",
    ]
    if "label_names" in config:
        lines += ["", "`label_names` in config.json has the classes in the order of the scores."]
    return lines


def _more_needs(config: Mapping[str, Any]) -> str:
    own = config["spp"]
    if "transformers" in own:
        return "transformers, nothing else"
    return f"`{own['factory']}`" if "factory" in own else "safetensors, nothing else"


def _origin(origin: Mapping[str, Any], licence: str | None) -> list[str]:
    lines = ["## Where it comes from", "", f"Licence of the parent weights: {licence or _UNKNOWN_LICENCE}."]
    for name, label in (("command", "Made by"), ("weights", "Weights"), ("commit", "Commit of spp")):
        if origin.get(name):
            lines.append(f"{label}: `{origin[name]}`.")
    return [*lines, "All of it, with the keys of the stages: `origin.json`."]
