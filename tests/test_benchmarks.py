"""The benchmarks still run: each at a size at which its numbers say nothing."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "bench_search": ["--img-size", "32", "--batch", "2", "--repeats", "2", "--model", "vit_tiny_patch16_224"],
    "bench_compact": ["--model", "vit_tiny_patch16_224", "--repeats", "2"],
    "bench_status": ["--stages", "30"],
    "bench_training": ["--width", "32", "--epochs", "2", "--repeats", "1"],
    "bench_sparsity": ["--shape", "64x64", "--steps", "sums", "sweep"],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("bench_*.py")))
def test_a_benchmark_runs_or_at_least_explains_itself(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    module = importlib.import_module(name)
    try:
        if name in SMALL:
            module.main(SMALL[name])
            assert any(character.isdigit() for character in capsys.readouterr().out)
        else:
            with pytest.raises(SystemExit) as ended:
                module.main(["--help"])
            assert ended.value.code == 0
            assert name in capsys.readouterr().out
    finally:
        sys.modules.pop(name, None)
