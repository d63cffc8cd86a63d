"""What can be known without torch is refused before torch is imported, which takes seconds."""

import json
import subprocess
import sys

WRONG = {
    "dense.batch_size=100000": ["dense.batch_size: 100000 is more than there is", "1350"],
    "finetune.warmup_epochs=99": ["finetune.warmup_epochs: 99"],
    "model.name=resnet_of_mine": ["model.name: 'resnet_of_mine'"],
    "method.lam=-1": ["method.lam: -1"],
    "model.factory=no_such_module:make": ["model.factory: there is no module 'no_such_module'"],
    "pipeline=one_search": ["pipeline: it does not fit method=spp"],
}
LOCAL = ["cluster=local", "cluster.resources.prune.tasks_per_node=3"]
SHARED = ["prune.batch_size: 64 cannot be shared by 3 processes", "use 63"]

CODE = """
import contextlib, io, json, sys
from spp.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = main(["run", *words])
    found.append([code, error.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_wrong_words_are_refused_before_torch_is_imported(tmp_path):
    asked = [[word] for word in WRONG] + [LOCAL]
    command = [
        sys.executable,
        "-c",
        CODE,
        json.dumps([[*words, f"paths.store={tmp_path / 'store'}"] for words in asked]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for words, named, (code, error, has_torch) in zip(
        asked, [*WRONG.values(), SHARED], json.loads(done.stdout), strict=True
    ):
        assert (code, error.count("\n"), has_torch) == (2, 1, False), (words, error)
        assert [word for word in named if word not in error] == [], error
    assert not (tmp_path / "store").exists()
