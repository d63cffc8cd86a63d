"""The commands of spp, and how their words are read (argparse's own subparsers cannot mix options and words)."""

import argparse
import math
import sys
from pathlib import Path
from typing import NoReturn

from spp.cli.complain import EXIT_USAGE, complain
from spp.cli.report_names import FORMATS, REPORTS

COMMANDS = {
    "run": "Run the stages of a pipeline, or of a sweep of them (-m); with cluster=slurm submit them.",
    "plan": "Show what `run` with the same words would do, and about what it costs; changes nothing.",
    "status": "Show the state of a sweep.",
    "watch": "Show the state of a sweep, live, until everything has ended.",
    "logs": "Show what a stage has printed.",
    "cancel": "End what is queued or running of a sweep; what is done stays.",
    "retry": "Do again what is missing of a sweep, and nothing else.",
    "list": "Show the sweeps of the store: name, tags, state, size, result.",
    "rm": "Forget a sweep; what it has made stays until gc.",
    "gc": "Show what nothing refers to any more; --yes removes it.",
    "diff": "Show in which fields two stages differ.",
    "why": "Show which fields make a stage another one than the nearest that is done.",
    "report": "Make tables and figures from what was run.",
    "path": "Show what members of a path cost, which units leave first, and what is to be expected: path show.",
    "extract": "Cut a compact model of any size from a finished path, without training or (--finetune) with.",
    "export": "Write a member as ONNX, as a torch program, or as a folder, for use without spp.",
    "pairs": "Show what can be pruned in a network, what it costs, and what is left alone and why.",
    "benchmark": "Measure latency, throughput and memory of members beside the dense networks that they were cut from.",
    "verify": "Read everything that is finished, and name what is damaged; --repair has it made again.",
    "unlock": "Free a stage whose worker is gone, without waiting.",
    "sync": "Upload to W&B what was kept offline; can be repeated.",
    "doctor": "Show what this machine and site have, and what is missing, with the remedy.",
    "completion": "Print what lets a shell complete the commands: completion bash, completion zsh.",
    "help": "Show the commands, or the help of one.",
}
RUNTIMES = ("eager", "compile", "onnxruntime", "int8")
"""What networks are measured in."""
_NEWEST_HELP = "name of the sweep, or how it begins; the newest if left out"
_OVERRIDES_HELP = "Hydra overrides such as model=vit_micro data=digits prune.epochs=0 budget.values=[0.5,0.3]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        sys.exit(EXIT_USAGE)


def build_parsers() -> dict[str, argparse.ArgumentParser]:
    """One parser per command."""
    where = "The store is paths.store=DIR, else $SPP_STORE, else ./store."
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, text in COMMANDS.items():
        parsers[name] = _Parser(prog=f"spp {name}", description=text, epilog=where)
        text = "one JSON object per line" if name == "watch" else "print JSON"
        parsers[name].add_argument("--json", action="store_true", help=text)
    _add_run_and_plan(parsers)
    for name in ("status", "watch", "cancel", "retry"):
        parsers[name].add_argument("words", nargs="*", metavar="SWEEP", help=_NEWEST_HELP)
    # For the job that a sweep leaves behind to see to what the machine broke.
    parsers["retry"].add_argument("--automatic", action="store_true", help=argparse.SUPPRESS)
    text = "seconds between two looks (default: %(default)g)"
    parsers["watch"].add_argument("--interval", type=_seconds, default=5.0, metavar="S", help=text)
    text = "write the same as a page into this file, anew at every look; no server is needed to read it"
    parsers["watch"].add_argument("--html", type=Path, metavar="FILE", help=text)
    parsers["doctor"].add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    _add_sweep_keeping(parsers)
    text = "name of the sweep, or how it begins; all finished stages of the store if left out"
    parsers["verify"].add_argument("words", nargs="*", metavar="SWEEP", help=text)
    text = "set aside what is damaged, so that the next run makes it again"
    parsers["verify"].add_argument("--repair", action="store_true", help=text)
    text = "key of the stage, or how it begins; submitting: the lock of whoever submits"
    parsers["unlock"].add_argument("words", nargs="*", metavar="STAGE", help=text)
    _add_logs(parsers["logs"])
    _add_report(parsers["report"])
    _add_path(parsers["path"])
    _add_extract(parsers["extract"])
    _add_export(parsers["export"])
    text = "timm:NAME; my.module:make_model; or the folder of a member"
    parsers["pairs"].add_argument("words", nargs="*", metavar="MODEL", help=text)
    _add_benchmark(parsers["benchmark"])
    text = "name of the sweep whose runs to upload, or how it begins; all runs of the store if left out"
    parsers["sync"].add_argument("words", nargs="*", metavar="SWEEP", help=text)
    parsers["completion"].add_argument("shell", choices=["bash", "zsh"], help="of which shell")
    parsers["help"].add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND", help="one of them")
    return parsers


def _add_run_and_plan(parsers: dict[str, argparse.ArgumentParser]) -> None:
    for name in ("run", "plan"):
        parsers[name].add_argument("-m", "--multirun", action="store_true", help="sweep: a,b,c in a value spans a grid")
        text = (
            "folder with more choices for the groups of conf/, such as DIR/model/mine.yaml; may be given several times"
        )
        parsers[name].add_argument("--config-dir", action="append", default=[], metavar="DIR", help=text)
        parsers[name].add_argument("words", nargs="*", metavar="OVERRIDE", help=_OVERRIDES_HELP)
    text = "print the composed configuration as YAML, a document for each point, and run nothing"
    parsers["run"].add_argument("--cfg", choices=["job"], help=text)


def _add_sweep_keeping(parsers: dict[str, argparse.ArgumentParser]) -> None:
    parsers["list"].add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    text = "how many, the newest first; 0: all (default: %(default)d)"
    parsers["list"].add_argument("-n", "--num", type=int, default=20, metavar="N", help=text)
    parsers["list"].add_argument("--tag", metavar="TAG", help="only those with this tag")
    parsers["rm"].add_argument("words", nargs="*", metavar="SWEEP", help="name of the sweep, or how it begins")
    parsers["gc"].add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    parsers["gc"].add_argument("--yes", action="store_true", help="remove it")
    text = "keys of two stages, or how they begin"
    parsers["diff"].add_argument("words", nargs="*", metavar="KEY", help=text)
    text = (
        "key of the stage, or how it begins; of one that spp plan shows and no sweep has, followed by the words of the "
        "plan"
    )
    parsers["why"].add_argument("words", nargs="*", metavar="STAGE", help=text)


def _add_logs(logs: argparse.ArgumentParser) -> None:
    text = "key of the stage, or how it begins; or a sweep; if left out what failed, runs or ended last in the newest"
    logs.add_argument("words", nargs="*", metavar="STAGE", help=text)
    logs.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="how many (default: %(default)d)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the stage ends; exit 1 if it failed")


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("name", metavar="NAME", help=f"{', '.join(REPORTS)}, or all")
    text = "a sweep's name, or how it begins; without it all of the store. Of W&B: ENTITY/PROJECT, or a folder of runs"
    report.add_argument("words", nargs="*", metavar="SWEEP", help=text)
    text = "where the numbers come from: the store, or W&B, by default the offline runs in the store"
    report.add_argument("--source", choices=["store", "wandb"], default="store", help=text)
    report.add_argument("--format", choices=FORMATS, help="default: all of them")
    report.add_argument("--out", type=Path, help="folder for the files; default: STORE/reports/SWEEP, or .../all")


def _add_path(path: argparse.ArgumentParser) -> None:
    path.add_argument("action", choices=["show"], metavar="show", help="the only thing that can be done with one")
    _add_source(path, "PATH")
    path.add_argument("--html", type=Path, metavar="FILE", help="write it as a page that needs nothing else, too")


def _add_source(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Which path, and the size of a member of it."""
    text = "a path's file or folder; the name of a sweep, the key of an update or search stage, or how they begin"
    parser.add_argument("source", metavar=metavar, help=text)
    parser.add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    for kind in ("macs", "params", "units"):
        text = "absolute (2.6G, 15.7M) or a fraction of dense (0.3, 30%%)"
        parser.add_argument(f"--{kind}", metavar="SIZE", help=text)


def _add_extract(extract: argparse.ArgumentParser) -> None:
    _add_source(extract, "WHAT")
    text = "re-fit what is cut to the dense model in closed form, with N training samples (default: leave it as cut)"
    extract.add_argument("--repair", type=_num_samples, default=0, metavar="N", help=text)
    text = "train it on first, by the sweep's own recipe, as spp run would for this budget; what is done is kept"
    extract.add_argument("--finetune", action="store_true", help=text)
    text = "milliseconds of one call, measured here: the largest model that is so fast"
    extract.add_argument("--latency-ms", type=_milliseconds, metavar="MS", help=text)
    extract.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where latency is measured")
    extract.add_argument("--batch", type=int, default=1, metavar="N", help="samples of one call (default: 1)")
    extract.add_argument("--threads", type=int, default=0, metavar="N", help="of the processor (default: all)")
    text = "round widths up to multiples of N within the budget (default: 8, where trained weights allow it)"
    extract.add_argument("--multiple-of", type=int, metavar="N", help=text)
    extract.add_argument("--out", type=Path, default=Path("extracted"), metavar="DIR", help="folder for the model")
    extract.add_argument("--force", action="store_true", help="overwrite a model that is there")
    text = "of a path's file that belongs to no stage: timm:NAME, my.module:make_model, or a folder of transformers"
    extract.add_argument("--model", metavar="MODEL", help=text)
    text = "a checkpoint of the dense model, whose weights are cut instead of the store's; of timm also pretrained"
    extract.add_argument("--weights", metavar="FILE", help=text)
    extract.add_argument("--no-measure", action="store_true", help="leave accuracy and speed unmeasured")


def _milliseconds(text: str) -> float:
    milliseconds = float(text)
    if not 0 < milliseconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: more than 0; use 10")
    return milliseconds


def _add_export(export: argparse.ArgumentParser) -> None:
    text = "folder of a member; or key of a finished stage that measured or finetuned one, or how it begins"
    export.add_argument("words", nargs="*", metavar="DIR|MEMBER", help=text)
    forms = ["safetensors", "onnx", "torch"]
    text = "safetensors: a folder that loads without spp; torch: a program of torch.export"
    export.add_argument("--format", choices=forms, required=True, help=text)
    text = "default: DIR/model.onnx or .pt2; of a member in the store member-KEY.onnx, .pt2, or the folder member-KEY"
    export.add_argument("--out", type=Path, metavar="FILE", help=text)
    text = "ONNX with integers of 8 bits: dynamic (default), or static, calibrated on the member's data"
    export.add_argument("--int8", nargs="?", const="dynamic", choices=["dynamic", "static"], help=text)
    export.add_argument("--opset", type=int, metavar="N", help="of ONNX; default: what your torch writes")
    export.add_argument("--force", action="store_true", help="overwrite a member's folder that is there")


def _add_benchmark(benchmark: argparse.ArgumentParser) -> None:
    text = "folder of a member, measured beside its dense network; timm:NAME; or my.module:make_model"
    benchmark.add_argument("words", nargs="*", metavar="DIR|MODEL", help=text)
    text = "eager and compile (of torch), onnxruntime, int8 (default: all that are here)"
    benchmark.add_argument("--runtimes", type=_words, default=RUNTIMES, metavar="A,B", help=text)
    text = "samples of one call (default: 1,32)"
    benchmark.add_argument("--batch", type=_numbers, default=(1, 32), metavar="N,M", help=text)
    text = "of the processor (default: 1,all)"
    benchmark.add_argument("--threads", type=_numbers, default=(1, 0), metavar="N,all", help=text)
    text = "default: the processor, and the GPU where there is one"
    benchmark.add_argument("--device", choices=["cpu", "cuda"], help=text)
    text = "seconds that each network is run in each setting (default: %(default)g)"
    benchmark.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help=text)
    benchmark.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw it as .png, .pdf or .svg, with a csv beside"
    )
    text = "keep what was measured in the store, for spp report table7"
    benchmark.add_argument("--keep", action="store_true", help=text)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split(","))
    for word in words:
        if word not in RUNTIMES:
            raise argparse.ArgumentTypeError(f"{word!r} is not allowed; allowed: {', '.join(RUNTIMES)}; use eager")
    return words


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of 1 or more; all stands for 0."""
    words = ["0" if word == "all" else word for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: numbers with commas between; use 1,32")
    return tuple(map(int, words))


def _num_samples(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 1 or more; use 256")
    return int(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 0.1 or more; use 5")
    return seconds
