"""The command `spp`. Exit codes: 0 done or submitted, 1 a stage failed, 2 the words are wrong."""

import argparse
import errno
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from spp import __version__
from spp.cli.report_names import FORMATS, REPORTS
from spp.cli.store_place import TRUST_WORD, store_root, trusted
from spp.plan.numbers import parse_size
from spp.text import visible

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

COMMANDS = {
    "run": "Run the stages of a pipeline, or of a sweep of them (-m); with cluster=slurm submit them.",
    "plan": "Show what `run` with the same words would do; changes nothing.",
    "status": "Show the state of a sweep.",
    "watch": "Show the state of a sweep, live, until everything has ended.",
    "logs": "Show what a stage has printed.",
    "cancel": "End what is queued or running of a sweep; what is done stays.",
    "retry": "Do again what is missing of a sweep, and nothing else.",
    "report": "Make tables and figures from what was run.",
    "extract": "Cut a compact model of any size from a finished path, without training.",
    "export": "Write a member as ONNX, as a torch program, or as a folder, for use without spp.",
    "verify": "Read everything that is finished, and name what is damaged; --repair has it made again.",
    "unlock": "Free a stage whose worker is gone, without waiting.",
    "sync": "Upload to W&B what was kept offline; can be repeated.",
    "doctor": "Show what this machine and site have, and what is missing, with the remedy.",
}
_NEWEST_HELP = "name of the sweep, or how it begins; the newest if left out"
_OVERRIDES_HELP = "Hydra overrides such as model=vit_micro data=digits prune.epochs=0 budget.values=[0.5,0.3]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see {self.prog} --help")
        sys.exit(EXIT_USAGE)


def build_parsers() -> dict[str, argparse.ArgumentParser]:
    """One parser per subcommand (argparse's own subparsers cannot mix options and words)."""
    where = "The store is paths.store=DIR, else $SPP_STORE, else ./store."
    parsers: dict[str, argparse.ArgumentParser] = {}
    for name, text in COMMANDS.items():
        parsers[name] = _Parser(prog=f"spp {name}", description=text, epilog=where)
    for name in ("run", "plan"):
        parsers[name].add_argument("-m", "--multirun", action="store_true", help="sweep: a,b,c in a value spans a grid")
        text = (
            "folder with more choices for the groups of conf/, such as DIR/model/mine.yaml; may be given several times"
        )
        parsers[name].add_argument("--config-dir", action="append", default=[], metavar="DIR", help=text)
        parsers[name].add_argument("words", nargs="*", metavar="OVERRIDE", help=_OVERRIDES_HELP)
    text = "print the composed configuration as YAML, a document for each point, and run nothing"
    parsers["run"].add_argument("--cfg", choices=["job"], help=text)
    for name in ("plan", "status", "watch", "logs", "cancel", "retry", "verify", "doctor"):
        text = "one JSON object per line" if name == "watch" else "print JSON"
        parsers[name].add_argument("--json", action="store_true", help=text)
    for name in ("status", "watch"):
        parsers[name].add_argument("words", nargs="*", metavar="SWEEP", help=_NEWEST_HELP)
    for name in ("cancel", "retry"):
        parsers[name].add_argument("words", nargs="*", metavar="SWEEP", help="name of the sweep, or how it begins")
    # For the job that a sweep leaves behind to see to what the machine broke.
    parsers["retry"].add_argument("--automatic", action="store_true", help=argparse.SUPPRESS)
    text = "seconds between two looks (default: %(default)g)"
    parsers["watch"].add_argument("--interval", type=_seconds, default=5.0, metavar="S", help=text)
    parsers["doctor"].add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    text = "name of the sweep, or how it begins; all finished stages of the store if left out"
    parsers["verify"].add_argument("words", nargs="*", metavar="SWEEP", help=text)
    text = "set aside what is damaged, so that the next run makes it again"
    parsers["verify"].add_argument("--repair", action="store_true", help=text)
    text = "key of the stage, or how it begins; submitting: the lock of whoever submits"
    parsers["unlock"].add_argument("words", nargs="*", metavar="STAGE", help=text)
    _add_logs(parsers["logs"])
    _add_report(parsers["report"])
    _add_extract(parsers["extract"])
    _add_export(parsers["export"])
    text = "name of the sweep whose runs to upload, or how it begins; all runs of the store if left out"
    parsers["sync"].add_argument("words", nargs="*", metavar="SWEEP", help=text)
    return parsers


def _complain(message: str) -> None:
    """Say in one line what is wrong."""
    print(f"spp: {visible(' '.join(message.split()))}", file=sys.stderr)


def _add_logs(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("words", nargs="*", metavar="STAGE", help="key of the stage, or how it begins")
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


def _add_extract(extract: argparse.ArgumentParser) -> None:
    text = "a path's file or folder; the name of a sweep, the key of an update or search stage, or how they begin"
    extract.add_argument("source", metavar="WHAT", help=text)
    extract.add_argument("words", nargs="*", metavar="OVERRIDE", help="paths.store=DIR")
    for kind in ("macs", "params", "units"):
        text = "absolute (2.6G, 15.7M) or a fraction of dense (0.3, 30%%)"
        extract.add_argument(f"--{kind}", metavar="SIZE", help=text)
    text = "milliseconds of one call, measured here: the largest model that is so fast"
    extract.add_argument("--latency-ms", type=_milliseconds, metavar="MS", help=text)
    extract.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where latency is measured")
    extract.add_argument("--batch", type=int, default=1, metavar="N", help="samples of one call (default: 1)")
    extract.add_argument("--threads", type=int, default=0, metavar="N", help="of the processor (default: all)")
    text = "round widths up to multiples of N within the budget (default: 8, where trained weights allow it)"
    extract.add_argument("--multiple-of", type=int, metavar="N", help=text)
    extract.add_argument("--out", type=Path, default=Path("extracted"), metavar="DIR", help="folder for the model")
    extract.add_argument("--force", action="store_true", help="overwrite a model that is there")
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


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: 0.1 or more; use 5")
    return seconds


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The subcommand and its arguments; prints help or a one-line complaint and exits where there is no more to do."""
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: spp COMMAND ...\n\nPrune a transformer once, deploy it at any size.\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))
        print("\nspp COMMAND --help tells more.")
        sys.exit(EXIT_OK)
    if command == "--version":
        print(f"spp {__version__}")
        sys.exit(EXIT_OK)
    parsers = build_parsers()
    if command not in parsers:
        allowed = ", ".join(parsers)
        _complain(f"command: {command!r} is unknown; allowed: {allowed}; see spp --help")
        sys.exit(EXIT_USAGE)
    return command, parsers[command].parse_intermixed_args(argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command, arguments = parse(argv)
    try:
        _refuse_bytes(argv)
        return _dispatch(command, arguments)
    except ValueError as error:
        _complain(str(error))
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; nothing more may be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if error.strerror is None:
            raise
        what = f"paths.store or --out: {str(error.filename)!r} cannot be used ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _complain(f"{what}; allowed: a disk with room; free some and say the same words again")
            return EXIT_FAILED
        _complain(f"{what}; allowed: a folder that can be read and written; choose another")
        return EXIT_USAGE
    except KeyboardInterrupt:
        _complain("interrupted; what is finished stays, the same words go on from there")
        return EXIT_FAILED


def _dispatch(command: str, arguments: argparse.Namespace) -> int:
    if command == "run":
        from spp.cli.commands.run import run, show_config

        if arguments.cfg:
            return show_config(arguments.words, arguments.multirun, arguments.config_dir)
        return run(arguments.words, arguments.multirun, arguments.config_dir)
    if command == "plan":
        from spp.cli.commands.plan import plan

        return plan(arguments.words, arguments.multirun, arguments.config_dir, as_json=arguments.json)
    _refuse_overrides(arguments.words, read=("paths.store=", TRUST_WORD) if command == "retry" else ("paths.store=",))
    root = store_root(arguments.words)
    if command == "doctor":
        from spp.cli.commands.doctor import doctor

        _one_word(arguments.words, "OVERRIDE", at_most=0)
        return doctor(root, as_json=arguments.json)
    if command == "logs":
        from spp.cli.commands.logs import logs

        stage = _one_word(arguments.words, "STAGE", at_least=1)
        if arguments.lines < 0:
            raise ValueError(f"--lines: {arguments.lines} is not allowed; allowed: 0 or more; use 100")
        return logs(root, stage, num_lines=arguments.lines, follow=arguments.follow, as_json=arguments.json)
    if command == "unlock":
        from spp.cli.commands.unlock import unlock

        return unlock(root, _one_word(arguments.words, "STAGE", at_least=1))
    if command == "extract":
        return _extract(root, arguments)
    if command == "export":
        from spp.cli.commands.export import ExportRequest, export

        member = _one_word(arguments.words, "MEMBER", at_least=1)
        return export(
            root,
            ExportRequest(
                member=member,
                form=arguments.format,
                out=arguments.out,
                opset=arguments.opset,
                int8=arguments.int8,
                force=arguments.force,
            ),
        )
    return _on_sweep(command, root, arguments)


def _on_sweep(command: str, root: Path, arguments: argparse.Namespace) -> int:
    sweep = _one_word(arguments.words, "SWEEP", at_least=command in ("cancel", "retry"))
    if command == "sync":
        from spp.cli.commands.sync import sync

        return sync(root, sweep or None)
    if command == "verify":
        from spp.cli.commands.verify import verify

        return verify(root, sweep or None, repair=arguments.repair, as_json=arguments.json)
    if command == "status":
        from spp.cli.commands.status import status

        return status(root, sweep or None, as_json=arguments.json)
    if command == "watch":
        from spp.cli.commands.watch import watch

        return watch(root, sweep or None, interval_s=arguments.interval, as_json=arguments.json)
    if command == "cancel":
        from spp.cli.commands.cancel import cancel

        return cancel(root, sweep, as_json=arguments.json)
    if command == "retry":
        from spp.cli.commands.retry import retry

        trust = trusted(arguments.words)
        return retry(root, sweep, as_json=arguments.json, automatic=arguments.automatic, trusted=trust)
    from spp.cli.commands.report import ReportRequest, report

    request = ReportRequest(arguments.name, sweep or None, arguments.source, arguments.format, arguments.out)
    return report(root, request)


def _extract(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.extract import Words, extract

    kinds = ("macs", "params", "units", "latency-ms")
    given = {kind: getattr(arguments, kind.replace("-", "_")) for kind in kinds}
    given = {kind: text for kind, text in given.items() if text is not None}
    if len(given) != 1:
        names = ", ".join(f"--{kind}" for kind in kinds)
        raise ValueError(f"{names}: {len(given)} are given; allowed: exactly one; add --macs 0.5")
    ((kind, text),) = given.items()
    if arguments.multiple_of is not None and arguments.multiple_of < 1:
        raise ValueError(f"--multiple-of: {arguments.multiple_of} is not allowed; allowed: 1 or more; use 8")
    words = Words(
        source=arguments.source,
        kind=kind,
        size=text if kind == "latency-ms" else parse_size(text, f"--{kind}"),
        out=arguments.out,
        force=arguments.force,
        multiple_of=arguments.multiple_of,
        device=arguments.device,
        batch_size=arguments.batch,
        num_threads=arguments.threads,
        measures=not arguments.no_measure,
    )
    return extract(root, words)


def _refuse_bytes(words: Sequence[str]) -> None:
    """What is no text can be written neither into a record nor to a terminal."""
    for word in words:
        if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in word):
            raise ValueError(
                f"{word}: it is not UTF-8; allowed: words and paths in UTF-8; rename the file, or link to it by "
                "another name"
            )


def _refuse_overrides(words: Sequence[str], read: tuple[str, ...]) -> None:
    """What looks like an override and is not read would leave its user with another store, or other resources."""
    for word in words:
        if "=" in word and not word.startswith(read):
            raise ValueError(
                f"{word}: nothing here reads it; allowed: paths.store=DIR; leave it out, or say `spp run` with it"
            )


def _one_word(words: Sequence[str], what: str, *, at_least: int = 0, at_most: int = 1) -> str:
    """The word that is no override; empty if there is none and need not be."""
    names = [word for word in words if word and "=" not in word]
    if len(names) > at_most:
        allowed = "one" if at_most else "none but paths.store=DIR"
        raise ValueError(f"{what}: {' '.join(names)!r} is too much; allowed: {allowed}; leave the others out")
    if len(names) < at_least:
        raise ValueError(f"{what}: it is missing; allowed: one of those that `spp status` shows; name it")
    return names[0] if names else ""


if __name__ == "__main__":
    sys.exit(main())
