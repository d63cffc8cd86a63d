"""Stage `tokens`: a text as windows of tokens, drawn to calibrate with or following each other to be measured on."""

from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spp.data.registry import open_text
from spp.data.text.source import SplitName
from spp.data.text.windows import calibration_windows, consecutive_windows
from spp.models.tokenizer import open_tokenizer
from spp.stages.context import StageRun
from spp.stages.language import given_folder

FILE = "tokens.safetensors"
HELD_OUT: tuple[SplitName, ...] = ("validation", "test")


def run(stage: StageRun) -> dict[str, Any]:
    """Write the windows: `calibration`, or `validation` and `test`; each (windows, length), int32."""
    stage.leave_to_leader()
    config = stage.config["text"]
    is_calibration = "seed" in stage.config
    tokenizer = open_tokenizer(given_folder(stage.store, stage.spec, "dense"))
    root = stage.runtime.data["calibration_root" if is_calibration else "root"]
    text = open_text(config["name"], root, "calibration.name" if is_calibration else "data.name")
    found = text.fingerprint()
    if found["sha256"] != config["fingerprint"]["sha256"]:
        raise ValueError(
            f"data.root: the text {config['name']!r} has changed since it was planned; allowed: the same files; plan "
            "the run again"
        )
    if is_calibration:
        seed = stage.config["seed"]
        drawn = calibration_windows(text, tokenizer.encode, config["num_windows"], config["length"], seed)
        windows = {"calibration": drawn}
        joint = text.train_joint if text.rule == "crops" else None
    else:
        windows = {
            split: consecutive_windows(
                torch.tensor(tokenizer.encode(text.joined(split))),
                config["length"],
                config.get("num_windows"),
                split,
            )
            for split in HELD_OUT
        }
        joint = text.test_joint
    save_file({name: tokens.int() for name, tokens in windows.items()}, stage.artifacts / FILE)
    return {
        "tokenizer": tokenizer.name,
        "first_token": tokenizer.first_token,
        "joint": joint,
        "length": config["length"],
        "num_windows": {name: len(tokens) for name, tokens in windows.items()},
    }


def load_windows(stage: StageRun, vocab_size: int) -> dict[str, Tensor]:
    """The windows of the stage's input `tokens`, int64.

    Raises:
        ValueError: one line, if they are not of the model's vocabulary.
    """
    windows = {name: tokens.long() for name, tokens in load_file(stage.input_artifacts("tokens") / FILE).items()}
    largest = max(int(tokens.max()) for tokens in windows.values())
    if largest >= vocab_size:
        raise ValueError(
            f"model.weights: its tokenizer gives the token {largest}, and the model knows {vocab_size}; allowed: the "
            "tokenizer that the model was trained with; correct the files beside the weights"
        )
    return windows
