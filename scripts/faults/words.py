"""Mutated words: whatever a user types, `spp` answers with exit code 0, 1 or 2, and says what is wrong in one line."""

import contextlib
import io
import os
import random
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn
from unittest import mock

LIMITS_S = {"plan": 60, "run": 90}
"""Seconds that one command may take."""

BASES: tuple[tuple[str, ...], ...] = (
    ("debug=fast",),
    ("method=taylor", "finetune.epochs=0"),
    ("method=vit_slim", "method.tokens=0.7", "budget.values=[0.5]"),
    ("method=wdpruning", "budget=macs:[0.5,0.3]", "search.lr=1e-3"),
    ("-m", "seed=0,1", "method.preset=priced,textbook"),
    ("-m", "method=spp,upop", "budget.values=[0.5]", "prune.epochs=choice(0,1)"),
    ("-m", "seed=range(0,3)", "experiment=lasso_or_path"),
    ("cluster=local", "cluster.max_parallel=2", "num_workers=1"),
    ("cluster=slurm", "cluster.resources.default.timeout_min=60", "cluster.resources.prune.mem_gb=8"),
    ("model.kwargs={depth: 2, embed_dim: 32, num_heads: 2}", "data.val_fraction=0.2"),
    ("model=vit_cifar", "data=digits", "model.kwargs.patch_size=4", "recipe=digits"),
    ("dense.augment={crop: pad4}", "dense.mixup=0.8", "finetune.distill_weight=0.5", "data.num_train=200"),
    ("~prune.interval", "+prune.interval=3", "++seed=4", "logger=off"),
    ("budget=params:[15k]", "rest_of_walk=false", "pipeline=spp", "accelerator=cpu"),
)
"""Words that are right, from which mutants are made."""

FIELDS = (
    "seed", "task", "task.name", "task.kwargs", "method", "method.name", "method.lam", "method.score",
    "method.min_units",
    "model", "model.name", "model.kwargs", "model.kwargs.patch_size", "model.kwargs.dynamic_img_size", "model.weights",
    "model.factory", "model.per_head", "data", "data.name", "data.root", "data.img_size", "data.val_fraction",
    "data.num_train", "data.factory", "data.kwargs", "data.format", "data.on_error", "data.fingerprint", "recipe",
    "dense", "dense.epochs", "dense.batch_size", "dense.lr", "dense.augment", "dense.precision", "update.epochs",
    "search.drop_path", "search.select", "prune.shape", "prune.interval", "finetune.ema_decay", "finetune.mixup",
    "finetune.distill_kind", "budget", "budget.kind", "budget.values", "cluster", "cluster.name", "cluster.gpus",
    "cluster.max_parallel", "cluster.resources", "cluster.resources.default", "cluster.resources.prune.setup",
    "cluster.resources.default.sbatch", "logger", "logger.mode", "logger.project", "paths", "paths.data", "experiment",
    "debug", "pipeline", "rest_of_walk", "num_workers", "num_threads", "accelerator", "hydra.run.dir",
    "hydra.sweeper.params", "hydra/sweeper", "hydra/launcher", "hydra.searchpath", "hydra.sweeper._target_", "defaults",
)  # fmt: skip

VALUES = (
    "", "null", "true", "???", "0", "-1", "1", "3", "1e37", "1e400", "-0.0", "nan", "inf", "0x10", "1_000", "01", "[]",
    "[1]", "[1,2,3]", "[[0.5]]", "[null]", "{}", "{a: 1}", "{a: {b: [1]}}", "{1: 2}", "{_target_: os.getpid}", "a,b",
    "1,2", "choice(1,2)", "range(0,3)", "range(0,1e9)", "interval(0,1)", "tag(log,interval(1e-4,1e-2))",
    "shuffle(1,2)",
    "sort(3,1)", "glob(*)", "int(3.5)", "str(1)", "'a b'", '"', "'", "${seed}", "${oc.env:HOME}",
    "${oc.env:NO_SUCH_NAME}",
    "${no.such}", "${paths.store}", "${", "a=b", "a b", "~", "~/x", "/", "/dev/null", "/proc", "/etc/passwd", "..", "*",
    "\\", "#", "%", "%d", "$", "$HOME", "\u00e9", "\u4e16\u754c", "\u0627\u0644", "\U0001f600", "\x1b[31m", "\x07",
    "\n",
    "\t", "\u202e", "x" * 300, "1000000", "99999999999999999999", "50%", "120%", "2.6G", "0.5.3", "spp", "digits",
    "train",
    "pretrained", "vit_micro", "deit_tiny", "os:getpid", "no.such:thing", "debug", "local",
)  # fmt: skip

_LETTERS = "=,.:;[]{}()<>'\"\\/~+-*#%$!?@&|^_ \t\n\x1b0123456789abzXYZ\u00e9\u4e16"


def mutant(draw: random.Random) -> list[str]:
    """Words that may be wrong: a base with one to three changes, of whole words or of letters."""
    words = list(draw.choice(BASES))
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3))):
        place = draw.randrange(len(words)) if words else 0
        change = draw.randrange(8)
        if change == 0 and words:
            words[place] = f"{words[place].partition('=')[0]}={draw.choice(VALUES)}"
        elif change <= 3 or not words:
            prefix = draw.choice(("", "", "", "", "+", "++", "~"))
            words.append(f"{prefix}{draw.choice(FIELDS)}={draw.choice(VALUES)}")
        elif change == 4:
            words[place] = draw.choice(("~", "+", "++")) + words[place].partition("=")[0]
        elif change == 5:
            words.insert(place, "-m")
        else:
            words[place] = _changed_letters(draw, words[place])
    return words


def _changed_letters(draw: random.Random, word: str) -> str:
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(word) + 1)
        match draw.randrange(4):
            case 0:
                word = word[:at] + draw.choice(_LETTERS) + word[at:]
            case 1:
                word = word[:at] + word[at + 1 :]
            case 2:
                word = word[:at] + draw.choice(_LETTERS) + word[at + 1 :]
            case _:
                word = word[:at] + word[at : at + 4] + word[at:]
    return word


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit code, or what is wrong with how it ended."""

    code: int
    fault: str | None = None


class _TooLongError(BaseException):
    """No Exception, so that nothing on the way takes it for an error of its own."""


class _ReachedError(BaseException):
    """The first stage would start now."""


def ask(command: str, words: Sequence[str], store: Path) -> Answer:
    """Carry out a command in this process; `run` as far as its first stage.

    Args:
        command: plan or run.
        words: the user's.
        store: gets what is written.
    """
    from spp.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with _limit(LIMITS_S[command]), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([command, *words, f"paths.store={store}"])
    except _ReachedError:
        return Answer(0)
    except _TooLongError:
        return Answer(-1, f"longer than {LIMITS_S[command]} s")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else -1
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Answer(-1, f"traceback of {type(error).__name__} at {where}: {' '.join(str(error).split())[:200]}")
    return Answer(code, _fault(code, out.getvalue(), err.getvalue()))


def _fault(code: int, out: str, err: str) -> str | None:
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if code == 2 and (err.count("\n") != 1 or not err.startswith("spp: ")):
        return f"exit code 2 with {err.count(chr(10))} lines: {err[:200]!r}"
    if any(letter in out + err for letter in "\x1b\x07\u202e"):
        return f"a control character is shown: {err[:200]!r}"
    return None


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Tally:
    """How many words were asked, how they were answered, and what was wrong."""

    codes: dict[int, int]
    faults: list[tuple[list[str], str]]

    @property
    def num_asked(self) -> int:
        return sum(self.codes.values())


def attack(command: str, count: int, seed: int) -> Tally:
    """Ask `count` mutants in this process, in a folder of its own that is gone afterwards.

    Args:
        command: plan or run.
        count: how many.
        seed: of the mutants.
    """

    def reach(*arguments: object, **options: object) -> NoReturn:
        raise _ReachedError

    tally, draw, here = Tally({}, []), random.Random(seed), Path.cwd()
    try:
        with mock.patch("spp.cli.launch.carry_out", reach), tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for _ in range(count):
                words = mutant(draw)
                answer = ask(command, words, Path(folder) / "store")
                tally.codes[answer.code] = tally.codes.get(answer.code, 0) + 1
                if answer.fault is not None:
                    tally.faults.append((words, answer.fault))
    finally:
        os.chdir(here)
    return tally
