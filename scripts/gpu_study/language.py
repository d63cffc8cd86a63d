"""Part (c): one-shot pruning of one decoder layer of Llama-7B's shape, with random weights: seconds and memory."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from gpu_study.rows import Rows
from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.sparsity.pattern import Pattern
from spp.sparsity.problem import LinearProblem, prepare_input
from spp.sparsity.statistics import InputStats

METHODS = ("wanda", "ria", "sparsegpt", "spp_ria")
WIDTHS = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)}
WIDTHS |= {"gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008)}
SHARED = {"k": "q", "v": "q", "up": "gate"}
"""Linears that see the input of another one share its statistics."""
