"""A week with spp in less than an hour, on the virtual cluster: python scripts/week.py [--out docs/week.md].

Plays what a lab member does in a week, with real commands on a real SLURM (slurm/cluster.sh; scripts/install_slurm.sh),
and writes the transcript. Every answer is held against what its reader wants to know; exit code 1 if one does not say
it. Must be run as root: it acts as a second user of the same group as well.
"""

import argparse
import contextlib
import importlib
import io
import os
import pkgutil
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUP, COLLEAGUE = 4720, 4712
CLUSTER = (
    "cluster=slurm cluster.resources.default.gpus_per_node=0 cluster.resources.default.cpus_per_task=1 "
    "accelerator=cpu cluster.backoff_min=0.1"
)
SHORT = "debug=fast budget.values=[0.5] logger=off"
SWEEP = f"-m {SHORT} seed=0,1 {CLUSTER}"

RUN_HERE = f"run -m {SHORT} seed=1,2 accelerator=cpu store.trust=group"

MY_NETS = '''\
"""A network of one's own, which needs a file when it trains."""

from pathlib import Path

import timm

SCALE = Path(__file__).with_name("scale.txt")


class Scaled(timm.models.VisionTransformer):
    def forward(self, x):
        scale = float(SCALE.read_text()) if self.training else 1.0
        return super().forward(x * scale)


def make_model():
    return Scaled(img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=2)
'''


class Week:
    """The transcript, and the shell that it is of."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._lines: list[str] = []
        self.num_wrong = 0

    def day(self, title: str) -> None:
        """A new heading."""
        self._lines += ["", f"## {title}", ""]
        print(title, flush=True)

    def say(self, text: str) -> None:
        """A paragraph between two commands."""
        self._lines += [text, ""]

    def spp(self, words: str, *, wants: Sequence[str], judged: str) -> str:
        """One command, whose answer has to hold what its reader wants to know."""
        done = self.start(words).communicate()[0]
        return self.judge(words, done, wants=wants, judged=judged)

    def start(self, words: str) -> "subprocess.Popen[str]":
        """A command that goes on beside others."""
        command = [sys.executable, "-m", "spp.cli.main", *shlex.split(words)]
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def judge(self, words: str, answer: str, *, wants: Sequence[str], judged: str, who: str = "") -> str:
        """Write down a command with its answer, and what is to be said about it."""
        shown = self._anonymous(answer).rstrip()
        shown = "\n".join(line.rstrip() for line in shown.splitlines())
        self._lines += ["```console", f"{who}$ spp {self._anonymous(words)}", *([shown] if shown else []), "```", ""]
        missing = [want for want in wants if not re.search(want, answer)]
        self.num_wrong += bool(missing)
        self._lines += [f"*{judged}*" if not missing else f"**Wanting: the answer lacks {missing}.** {judged}", ""]
        print(f"  {'ok' if not missing else f'WANTING {missing}'}: spp {words[:90]}", flush=True)
        return answer

    def _anonymous(self, text: str) -> str:
        return text.replace(str(self.folder), "~/study").replace(socket.gethostname(), "login1")

    def text(self) -> str:
        """The whole transcript."""
        return "\n".join(self._lines)


def as_colleague(words: str, folder: Path, environment: dict[str, str]) -> str:
    """What a command prints for another user of the group; modules are loaded before, as Python may be out of reach."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(COLLEAGUE)
            os.umask(0o002)
            os.environ.update(environment, LOGNAME="bea", HOME=str(folder / "bea"))
            os.chdir(folder)
            from spp.cli.main import main as spp

            code = spp(shlex.split(words))
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return answer


def key_of(answer: str, kind: str) -> str:
    """The beginning of the key of the first stage of a kind in a table of spp plan."""
    found = re.search(rf"^{kind}\b.*?\b([0-9a-f]{{8}})\b", answer, re.MULTILINE)
    assert found is not None, answer
    return found[1]


def monday(week: Week) -> None:
    week.day("Monday: what would it cost?")
    week.say("On a laptop, without the data and without a cluster.")
    week.spp(
        "plan -m model=deit_tiny,deit_small data=imagenet model.weights=train dense.epochs=300 seed=0,1 "
        "cluster=slurm_a100 dense.precision=bf16-mixed",
        wants=[r"estimated [\d.]+ GPU-hours", "imagefolder is not here", "30 % of the bf16 peak of A100", "spp +0"],
        judged="The hours, what they rest on, and that the keys are not yet those of the run: enough to decide.",
    )
    week.spp(
        "plan model=deit_small data=imagenet cluster=slurm_a100 budget.values=[9G]",
        wants=["budget.values: 9,000,000,000 cannot be reached", "allowed: "],
        judged="What `run` would refuse is refused here, with what is allowed.",
    )
    week.say("The same for the small study of this week, now on the cluster's login node.")
    week.spp(
        f"plan {SWEEP}",
        wants=[r"\d+ to submit by \d+ calls of sbatch", "on the CPU"],
        judged="A total for CPUs as well.",
    )
    week.say("Two shells submit it at the same moment.")
    words = f"run name=fast-study tags=[week,digits] note='two seeds, as short as can be' {SWEEP}"
    shells = [week.start(words), week.start(words)]
    answers = [shell.communicate()[0] for shell in shells]
    for answer in sorted(answers, key=lambda text: "awaited from" in text):
        week.judge(
            words,
            answer,
            wants=["called fast-study", r"[1-9]\d* jobs submitted|[1-9]\d* stages awaited from other jobs"],
            judged="One of them has submitted all jobs and the other none: both sweeps are the same one.",
        )
    week.num_wrong += sum(re.search(r"^0 jobs submitted", answer, re.MULTILINE) is None for answer in answers) != 1
    week.spp(
        "status",
        wants=["waits for", "inputs: ", "running"],
        judged="What runs, how far it is, and what the others wait for, in words.",
    )


def tuesday(week: Week) -> None:
    week.day("Tuesday: watching, and a failure")
    week.spp(
        "watch --html live.html --interval 2",
        wants=[r"\d+/\d+ done", "to go", "2/2 points"],
        judged="A line for every change with a time to go. The page live.html says the same, with curves, "
        "wherever a browser can read the file.",
    )
    page = (week.folder / "live.html").read_text()
    week.num_wrong += not ("2 of 2" in page and 'http-equiv="refresh"' not in page)
    week.say("A network of one's own, which lacks a file on the nodes.")
    (week.folder / "my_nets.py").write_text(MY_NETS)
    words = f"model.factory=my_nets:make_model recipe=digits {SHORT} name=own-net {CLUSTER}"
    week.spp(
        f"run {words}", wants=[r"[1-9]\d* jobs submitted"], judged="Submitted, as nothing of it shows before it trains."
    )
    week.spp(
        "watch --interval 2",
        wants=["failed: dense", "scale.txt"],
        judged="It ends when nothing can go on, with the stage that failed and why.",
    )
    week.spp(
        "status",
        wants=[r"my_nets.py:12 in forward: scale = float", "FileNotFoundError", "waits for spp retry"],
        judged="The user's own line comes first, and no frame of Lightning; what it blocks waits for it.",
    )
    week.spp(
        "logs -n 3", wants=["dense .* failed", "FileNotFoundError"], judged="Without a name it is what has failed."
    )
    week.spp(
        "report family --format md",
        wants=["not there, (failed|not finished): ", "spp retry"],
        judged="Made over what is there, that is Monday's sweep; what is not there is named with the remedy.",
    )
    (week.folder / "scale.txt").write_text("1.0")
    week.spp("retry", wants=[r"[1-9]\d* jobs submitted"], judged="The newest sweep is meant unless another is named.")
    week.spp("watch --interval 2", wants=["1/1 point"], judged="All is there.")
    week.spp(
        "logs -n 4",
        wants=["is done in"],
        judged="The log of a stage that went well has its epochs, too; none is empty.",
    )


def wednesday(week: Week) -> None:
    week.day("Wednesday: a mistake, and a cancel")
    words = f"run {SHORT} dense.epochs=4000 seed=7 name=too-long {CLUSTER}"
    week.spp(words.replace("run", "plan", 1), wants=["on the CPU"], judged="One could have seen it here.")
    week.spp(words, wants=[r"[1-9]\d* jobs submitted"], judged="Submitted all the same.")
    time.sleep(20)
    week.spp("cancel", wants=[r"[1-9]\d* jobs ended", "go on with: spp retry"], judged="Ended, with the way back.")
    week.spp("status", wants=["cancelled", "go on with"], judged="It says cancelled, and not queued.")


def thursday(week: Week) -> None:
    week.day("Thursday: comparing")
    week.spp(
        "list",
        wants=["fast-study .* done", "own-net .* done", "too-long .* cancelled", "#week #digits", r"top-1 [\d.]+ to"],
        judged="Names, states, sizes and results on one screen.",
    )
    words = f"{SHORT} finetune.lr=0.01 seed=0 {CLUSTER}"
    answer = week.spp(
        f"plan {words}", wants=["done", "queued"], judged="The search is shared with Monday's; the finetuning is not."
    )
    key = key_of(answer, "finetune")
    week.spp(
        f"why {key} {words}",
        wants=["is not done", r"finetune.lr +0.01"],
        judged="The one field that makes it another stage.",
    )
    status = week.start("status fast-study --json").communicate()[0]
    keys = re.findall(r'"kind": "update",\s+"key": "([0-9a-f]{8})', status)
    week.spp(f"diff {keys[0]} {keys[1]}", wants=[r"seed +0 +1"], judged="Two keys, and what tells them apart.")


def friday(week: Week, environment: dict[str, str]) -> None:
    week.day("Friday: a colleague, and tidying up")
    week.say("Bea is in the same group. She asks for a part of what is there, and for one point more.")
    for words, wants, judged in (
        ("list", ["fast-study"], "She sees the sweeps of the group."),
        (
            f"{RUN_HERE} name=beas",
            [r"[1-9]\d* done, [1-9]\d* cached, 0 failed"],
            "What is done counts for her, too: only the new point was run.",
        ),
    ):
        answer = as_colleague(words, week.folder, environment)
        week.judge(words, answer, wants=wants, judged=judged, who="bea")
    week.spp("list --json", wants=['"user": "bea"'], judged="Whose sweep it is stands in the JSON.")
    week.spp("rm too-long", wants=["is forgotten"], judged="The plan is gone, what it made stays.")
    week.spp("rm own-net", wants=["is forgotten"], judged="So for the second.")
    week.say("A stage that is younger than an hour is not taken for garbage; let an hour pass.")
    hour_ago = time.time() - 2 * 3600
    for stage in (week.folder / "store" / "stages").glob("*/*"):
        os.utime(stage, (hour_ago, hour_ago))
    week.spp(
        "gc", wants=["no sweep refers to it", "nothing was removed yet"], judged="What would go, why, and how much."
    )
    week.spp("gc --yes", wants=["things removed"], judged="Gone.")
    week.spp(
        "report family --format md",
        wants=["vit_micro on digits"],
        judged="What the sweeps refer to is still all there.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Play the week; exit code 1 if an answer was wanting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "week.md")
    out = parser.parse_args(argv).out
    if os.getuid() != 0:
        parser.error("it has to be root, to be two users")
    import spp

    for module in pkgutil.walk_packages(spp.__path__, "spp."):
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as store, contextlib.redirect_stdout(io.StringIO()):
        # What is only loaded at work has to be there as well before the process becomes somebody else.
        assert importlib.import_module("spp.cli.main").main([*RUN_HERE.split(), f"paths.store={store}"]) == 0
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="spp-week-"))
    os.chown(folder, -1, GROUP)
    folder.chmod(0o2775)
    os.umask(0o002)
    cluster_root = f"/tmp/sc-week-{os.getpid()}"
    settings = {"SC_ROOT": cluster_root, "SC_DBD": "0", "SC_CPUS": "1", "SC_NODES": "2"}
    environment = {
        **os.environ, **settings, "SLURM_CONF": f"{cluster_root}/slurm.conf", "OMP_NUM_THREADS": "1",
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LOGNAME": "ada", "COLUMNS": "150",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }  # fmt: skip
    command = [str(ROOT / "slurm" / "cluster.sh")]
    subprocess.run([*command, "up"], env=environment, check=True, stdout=subprocess.DEVNULL)
    week = Week(folder, environment)
    try:
        monday(week)
        tuesday(week)
        wednesday(week)
        thursday(week)
        friday(week, environment)
    finally:
        subprocess.run([*command, "reset"], env=environment, check=False, stdout=subprocess.DEVNULL)
        minutes = (time.monotonic() - began) / 60
        head = [
            "# A week with spp, in an hour",
            "",
            f"Written by `scripts/week.py` on a virtual cluster of two nodes with one CPU each, in {minutes:.0f} "
            "minutes. Every answer was held against what its reader wants to know, and what is said about it stands "
            "below it.",
        ]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(head) + week.text().rstrip() + "\n")
    print(f"{out}: {week.num_wrong} answers are wanting, {minutes:.0f} min", flush=True)
    return 1 if week.num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
