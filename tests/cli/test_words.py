"""Wrong words: exit code 2, one line that names field, value, what is allowed and the remedy; nothing is written."""

import os
import shlex
import subprocess
import sys

import pytest

from spp.cli.main import main, store_root
from spp.cli.points import compose_points
from spp.cli.words import expand

WRONG = [
    (["run", "model=vit_macro"], ["model", "'vit_macro'", "did you mean model=vit_micro"]),
    (["run", "model.name=resnet_of_mine"], ["model.name", "'resnet_of_mine'", "allowed"]),
    (["run", "model.name=resnet18", "model.kwargs={}"], ["ResNet", "adapter"]),
    (["run", "budget.values=[120%]"], ["budget.values", "120%", "allowed"]),
    (["run", "budget.values=[1.2]"], ["budget.values", "1.2", "allowed"]),
    (["run", "budget.values=[0.001]"], ["budget.values", "0.001", "allowed"]),
    (["run", "budget.values=[900G]"], ["budget.values", "900,000,000,000", "allowed"]),
    (["run", "budget=flops:[0.5]"], ["budget", "'flops'", "macs"]),
    (["run", "method.lam=-1"], ["method.lam", "-1", "allowed"]),
    (["run", "method=vit_slim", "method.tokens=70"], ["method.tokens", "70", "up to 1"]),
    (
        ["run", "method=vit_slim", "method.tokens=0.7", "model=swin_tiny", "model.weights=train", "data.img_size=32"],
        ["method.tokens", "0.7", "SwinTransformer", "method.tokens=1"],
    ),
    (["run", "method=best"], ["method", "'best'", "spp"]),
    (["run", "method.lamda=1"], ["method.lamda", "did you mean method.lam?"]),
    (["run", "finetune.epoch=3"], ["finetune.epoch", "did you mean finetune.epochs?"]),
    (["run", "finetune.epochs=-3"], ["finetune.epochs", "-3", "allowed"]),
    (["run", "update.steps=200", "update.epochs=3"], ["update.epochs", "3", "0 beside steps=200"]),
    (["run", "method=upop", "search.steps=50"], ["prune.epochs", "10", "search.steps=50", "use prune.epochs=0"]),
    (["run", "finetune.epochs=many"], ["finetune.epochs", "'many'", "int"]),
    (["run", "data=cifar10", "data.root=/no/such/folder"], ["data.root", "/no/such/folder", "allowed"]),
    (["run", "model.weights=/no/such.safetensors"], ["model.weights", "/no/such.safetensors", "allowed"]),
    (["run", "seed=0,1"], ["seed", "0,1", "add -m"]),
    (["run", "seed=x"], ["seed", "'x'", "integer"]),
    (["run", "dense.batch_size=100000"], ["batch_size", "100000", "allowed"]),
    (["run", "recipe=[1"], ["recipe=[1"]),
    (["run", "cluster=local", "cluster.max_parallel=0"], ["cluster.max_parallel", "0", "allowed"]),
    (["run", "cluster=local", "cluster.max_parallel=foo"], ["cluster.max_parallel", "'foo'", "int"]),
    (["run", "cluster=local", "cluster.gpus=foo"], ["cluster.gpus", "'foo'"]),
    (["run", "model.weights=pretrained"], ["model.weights", "'pretrained'", "1000 classes", "have 10"]),
    (["run", "cluster.name=moon"], ["cluster.name", "'moon'", "debug, local, slurm"]),
    (["run", "logger.mode=foo"], ["logger.mode", "'foo'", "offline"]),
    (["run", "seed=true"], ["seed", "True", "integer"]),
    (["run", "accelerator=gpu"], ["accelerator", "'gpu'", "cpu"]),
    (["run", "num_workers=-1"], ["num_workers", "-1"]),
    (["run", "dense=null"], ["dense", "None"]),
    (["run", "~method"], ["method"]),
    (["run", "~seed"], ["seed"]),
    (["run", "+foo=1"], ["foo", "1"]),
    (["run", "+data.fingerprint={a:1}"], ["data.fingerprint"]),
    (["run", "hydra.run.dir=x"], ["hydra.run.dir=x"]),
    (["run", "pipeline=/etc/passwd"], ["pipeline", "/etc/passwd", "solution_path"]),
    (["run", "pipeline=one_serch"], ["pipeline", "'one_serch'", "did you mean pipeline=one_search?"]),
    (["run", "pipeline=one_search"], ["pipeline", "method=spp", "taylor", "leave pipeline out"]),
    (["run", "pipeline=upop", "method=taylor"], ["pipeline", "method=taylor", "upop"]),
    (["run", "recipe=digit"], ["recipe", "'digit'", "did you mean recipe=digits?"]),
    (["run", "task.kwargs={size: 1}"], ["task.kwargs", "{'size': 1}", "task.factory"]),
    (["run", "data.kwargs.size=1"], ["data.kwargs", "{'size': 1}", "data.factory"]),
    (["run", "model=own"], ["model.factory", "not set", "model.factory="]),
    (["run", "dense.distill_weight=0.5"], ["dense.distill_weight", "0.5", "teacher"]),
    (["run", "teacher.name=regnety_161"], ["teacher.name", "'regnety_161'", "regnety_160"]),
    (["run", "teacher.name=regnety_160", "teacher.weights=train"], ["teacher.weights", "'train'", "use pretrained"]),
    (["run", "teacher.weights=w.pt"], ["teacher.name", "None", "say which network"]),
    (["run", "teacher.name=llama"], ["teacher.name", "'llama'", "timm"]),
    (
        ["run", "teacher.name=regnety_160", "teacher.weights=/no/such.pt"],
        ["teacher.weights", "/no/such.pt", "path of a checkpoint"],
    ),
    (
        ["run", "teacher.name=regnety_160", "finetune.distill_weight=0.5"],
        ["teacher.name", "'regnety_160.", "1000 classes", "has 10", "teacher.weights=FILE"],
    ),
    (
        ["run", "method.drive=kl", "update.distill_weight=0.5"],
        ["update.distill_weight", "0.5", "the dense network alone"],
    ),
    (["run", "finetune.lr=???"], ["finetune.lr", "not set"]),
    (["run", "hydra.searchpath=here"], ["hydra.searchpath", "'here'", "--config-dir DIR"]),
    (["run", "hydra.searchpath=[/no/such/folder]"], ["--config-dir", "'/no/such/folder'", "no folder"]),
    (["run", "--config-dir", "/no/such/folder"], ["--config-dir", "'/no/such/folder'", "no folder"]),
    (["run", "model.kwargs={num_heads: 0}"], ["model.kwargs", "num_heads"]),
    (["run", "model.kwargs={depth: 6, colour: red}"], ["model.kwargs", "colour"]),
    (["run", "dense.warmup_epochs=99"], ["dense.warmup_epochs", "99", "40"]),
    (["run", "update.input_noise=-1"], ["update.input_noise", "-1"]),
    (["run", "update.precision=foo"], ["update.precision", "'foo'", "32-true"]),
    (["run", "prune.ema_decay=0.9"], ["prune.ema_decay", "0.9"]),
    (["run", "finetune.warmup_epochs=99"], ["finetune.warmup_epochs", "99"]),
    (["run", "dense.lr=inf"], ["dense.lr", "inf"]),
    (["run", "dense.mixup=0.8", "dense.batch_size=33"], ["dense.batch_size", "33", "even"]),
    (["run", "data.split_seed=-1"], ["data.split_seed", "-1"]),
    (["run", "dense.augment.crop=round"], ["augment.crop", "'round'", "pad4"]),
    (["extract", "some/path.safetensors", "--macs", "0.5"], ["some/path.safetensors", "does not exist"]),
    (["plan", "method.lam=-1"], ["method.lam", "-1", "allowed"]),
    (["extract", "no-such-sweep", "--macs", "0.5"], ["paths.store", "holds no sweep"]),
    (["extract", "no-such-sweep", "--macs", "120%"], ["--macs", "120%", "allowed"]),
    (["extract", "no-such-sweep"], ["--macs, --params, --units, --latency-ms", "exactly one"]),
    (["status"], ["paths.store", "holds no sweep"]),
    (["watch"], ["paths.store", "holds no sweep"]),
    (["cancel"], ["paths.store", "holds no sweep"]),
    (["cancel", "no-such-sweep"], ["paths.store", "holds no sweep"]),
    (["retry"], ["paths.store", "holds no sweep"]),
    (["retry", "one", "two"], ["SWEEP", "'one two'", "allowed: one"]),
    (["logs"], ["paths.store", "holds no sweep"]),
    (["logs", "abc"], ["STAGE", "'abc'", "allowed"]),
    (["logs", "abc", "-n", "-1"], ["--lines", "-1", "allowed"]),
    (["cancel", ""], ["SWEEP", "empty", "leave it out"]),
    (["status", "paths.stroe=/elsewhere"], ["paths.stroe=/elsewhere", "allowed: paths.store=DIR"]),
    (["retry", "one", "cluster.num_retries=3"], ["cluster.num_retries=3", "spp run"]),
    (["run", "cluster=slurm", "cluster.resources.finetun.timeout_min=5"], ["cluster.resources", "'finetun'", "prune"]),
    (["run", "cluster=slurm", "cluster.resources.default.sbatch={job_name: x}"], ["default.sbatch", "'job_name'"]),
    (["run", "-m", "cluster=debug,local"], ["cluster", "cluster=local", "first point"]),
    (["doctor", "me"], ["'me'", "paths.store=DIR"]),
    (["report", "table99"], ["NAME", "'table99'", "family"]),
    (["plan", "-m", "search.drop_path=interval(0,1)"], ["search.drop_path", "interval(0,1)", "choice(a,b)"]),
    (["plan", "-m", "~cluster", "experiment=0x10"], ["experiment", "'0x10'", "lasso_or_path"]),
    (["plan", "-m", "experiment=[[0.5]]"], ["allowed"]),
    (["plan", "-m", "dense.ema_decay=glob(*)"], ["dense.ema_decay=glob(*)", "no point"]),
    (["plan", "-m", "seed=range(0,1e9)"], ["seed=range(0,1e9)", "1000000000 points", "100000"]),
    (["plan", "-m", "seed=range(0,1000)", "dense.epochs=range(0,1000)"], ["1000000 points"]),
    (["run", "-m", "hydra/sweeper=spp_optuna", "seed=range(0,1e9)"], ["1000000000 points"]),
    (["plan", "-m", "data.root=range(0,3)"], ["data.root", "0", "data.root=./0"]),
    (["plan", "-m", "seed=range(0,0)"], ["seed=range(0,0)", "no point"]),
    (
        ["run", "-m", "hydra.sweeper._target_=os.system"],
        ["hydra.sweeper._target_", "'os.system'", "hydra/sweeper=NAME"],
    ),
    (["run", "-m", "+hydra.sweeper.params._target_=x"], ["hydra.sweeper.params._target_", "'x'"]),
    (["run", "-m", "+hydra.sweeper.params.seed=x"], ["allowed"]),
    (["run", "-m", "hydra.sweeper.max_batch_size=x"], ["hydra.sweeper.max_batch_size=x"]),
    (["run", "model.kwargs={}"], ["VisionTransformer", "digits", "8 x 8"]),
    (["run", "model.kwargs={patch_size: [1,2,3]}"], ["VisionTransformer", "padding"]),
    (["run", "model.kwargs={dynamic_img_size: true}"], ["VisionTransformer", "divisible"]),
    (["run", "model.kwargs={depth: 1000000}"], ["model.kwargs.depth", "1000000", "1000"]),
    (["run", "data.img_size=1"], ["VisionTransformer", "1 x 1"]),
    (["plan", "data.img_size=100000"], ["data.img_size", "100000", "4096"]),
    (["plan", "num_threads=10000"], ["num_threads", "10000", "256"]),
    (["plan", "num_workers=10000"], ["num_workers", "10000", "256"]),
    (["plan", "model.name=a{b"], ["model.name=a{b", """'model.name="a{b"'"""]),
    (["plan", "model.name=a,b"], ["model.name", "add -m", """'model.name="a,b"'"""]),
    (["plan", "model.name=\x1b[2J"], ["\\x1b[2J"]),
    (["plan", "model.name=\udce9"], ["not UTF-8", "rename"]),
    (["logs", "\x1b[2J\u202e"], ["x1b[2J", "u202e"]),
]


@pytest.mark.parametrize(("argv", "named"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_wrong_words_get_one_line_and_leave_nothing(argv, named, tmp_path, capsys):
    store = tmp_path / "store"
    assert main([*argv, f"paths.store={store}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("spp: ")
    assert error[:-1].isprintable()
    assert [word for word in named if word not in error] == [], error
    assert not (store / "stages").exists()
    assert not (store / "sweeps").exists()


LETTERS = "é,=[](){}'\"#~$ %j \u4e16\u754c \u0627 ;&a!*?\\b\\"


@pytest.mark.parametrize("field", ["paths.store", "paths.data", "data.root", "model.weights"])
@pytest.mark.parametrize(
    "name", [LETTERS, *LETTERS.replace(" ", ""), "a b", " a", "2024", "1_000", "true", "[1]", "a,b"]
)
def test_a_path_is_taken_as_it_is_typed(field, name):
    (point,) = compose_points([f"{field}=/tmp/{name}"], multirun=False)
    group, _, entry = field.partition(".")
    assert point.cfg[group][entry] == f"/tmp/{name}"
    (point,) = compose_points([f"{field}={name}"], multirun=False)
    assert point.cfg[group][entry] == name.replace("~", os.path.expanduser("~"), name == "~")


def test_a_path_may_still_be_a_choice_a_reference_or_quoted(monkeypatch):
    points = compose_points(["model.weights=/a,/b", "data.root=${paths.data}/x", "paths.data='/c,d'"], multirun=True)
    assert [point.cfg["model"]["weights"] for point in points] == ["/a", "/b"]
    assert {point.cfg["data"]["root"] for point in points} == {"/c,d/x"}


def test_all_commands_mean_the_same_store(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for word in ("paths.store=~/a b", "paths.store='/home/me/a b'", 'paths.store="/home/me/a b"'):
        (point,) = compose_points([word], multirun=False)
        assert str(store_root([word])) == point.cfg["paths"]["store"] == "/home/me/a b"


@pytest.mark.parametrize(("cluster", "wrong"), [("local", ":"), ("slurm", ":"), ("slurm", "%j"), ("slurm", "%A")])
def test_a_store_that_workers_would_not_find_is_refused(cluster, wrong, tmp_path, capsys):
    assert main(["plan", f"cluster={cluster}", f"paths.store={tmp_path}/a{wrong}b"]) == 2
    assert f"{wrong!r}" in capsys.readouterr().err
    assert main(["plan", "cluster=debug", f"paths.store={tmp_path}/a{wrong}b"]) == 0


def test_a_store_may_have_any_letters(tmp_path, capsys):
    word = f"paths.store={tmp_path / LETTERS}"
    words = ["debug=fast", "logger=off", "budget.values=[0.5]", "prune.epochs=0", "finetune.epochs=0"]
    assert main(["run", *words, word]) == 0
    assert main(["status", word]) == 0
    assert main(["report", "family", "--format", "csv", word]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [LETTERS]
    assert "1 of 1 point done" in capsys.readouterr().out


def test_a_corrupt_path_is_named(finished, tmp_path, capsys):
    root, _ = finished
    broken = tmp_path / "path.safetensors"
    broken.write_bytes(b"not a path at all")
    assert main(["extract", str(broken), "--macs", "0.5", f"paths.store={root}", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(broken) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [["--bad"], ["walk"], ["run", "--fast"], ["extract"]])
def test_unknown_commands_and_options_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_loads_neither_torch_nor_hydra():
    code = "import sys; sys.argv = ['spp', '--help']\nfrom spp.cli.main import main\nassert main() == 0\n"
    code += "print(sorted({'torch', 'hydra', 'rich', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["plan", "status"])
def test_plan_and_status_load_no_torch(command, finished):
    """What keeps them quick, tested by what they import and not by a clock."""
    root, _ = finished
    words = ["debug=fast", "logger=off"] if command == "plan" else []
    code = (
        f"import sys\nfrom spp.cli.main import main\nassert main({[command, *words, f'paths.store={root}']!r}) == 0\n"
    )
    code += "print(sorted({'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_store_is_found_by_word_then_environment_then_folder(monkeypatch):
    monkeypatch.delenv("SPP_STORE", raising=False)
    assert str(store_root([])) == "store"
    monkeypatch.setenv("SPP_STORE", "/somewhere")
    assert str(store_root([])) == "/somewhere"
    assert str(store_root(["paths.store=here"])) == "here"


def test_a_store_with_a_comma_is_said_in_quotes_in_a_sweep(tmp_path, capsys):
    assert main(["plan", "-m", f"paths.store={tmp_path}/a,b"]) == 2
    error = capsys.readouterr().err
    (pasted,) = shlex.split(error[error.index("type ") + len("type ") : error.index(" if it is one path")])
    assert pasted == f'paths.store="{tmp_path}/a,b"'
    assert main(["plan", "-m", pasted]) == 0


def test_a_sweep_has_one_store(tmp_path, capsys):
    assert main(["plan", "-m", f"paths.store={tmp_path}/a,{tmp_path}/b"]) == 2
    assert "paths.store: " in capsys.readouterr().err


def test_a_store_that_cannot_be_one_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["plan", "debug=fast", f"paths.store={tmp_path / 'file' / 'store'}"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("preset", ["priced", "textbook", "released"])
@pytest.mark.filterwarnings("ignore:no unit entered the support:UserWarning")
def test_an_update_of_one_batch_is_an_update(preset, tmp_path):
    words = ["debug=fast", "logger=off", "budget.values=[0.5]", "prune.epochs=0", "finetune.epochs=0"]
    words += ["data.num_train=200", "update.batch_size=180", f"method.preset={preset}", f"paths.store={tmp_path}"]
    assert main(["run", *words]) == 0
    assert main(["report", "all", "--format", "csv", f"paths.store={tmp_path}"]) == 0


def test_data_for_one_task_imply_it():
    assert expand(["data=digit_scenes"]) == ["task=retrieval", "data=digit_scenes"]
    assert expand(["data=digit_scenes", "task=own"]) == ["data=digit_scenes", "task=own"]
    assert expand(["data=digits"]) == ["data=digits"]
