"""The command `spp`. Exit codes: 0 done or submitted, 1 a stage failed, 2 the words are wrong."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from spp import __version__
from spp.cli.complain import EXIT_FAILED, EXIT_OK, EXIT_USAGE, complain
from spp.cli.parsers import COMMANDS, build_parsers
from spp.cli.store_place import TRUST_WORD, store_root, trusted
from spp.plan.numbers import parse_size
from spp.store.atomic import is_full

_STORE_WORD = "paths.store="
_TAKES_OVERRIDES = ("run", "plan", "why")
"""Commands whose words are Hydra's as well."""


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """The subcommand and its arguments; prints help or a one-line complaint and exits where there is no more to do."""
    command = argv[0] if argv else "help"
    if command in ("-h", "--help"):
        command = "help"
    if command == "--version":
        print(f"spp {__version__}")
        sys.exit(EXIT_OK)
    parsers = build_parsers()
    if command not in parsers:
        allowed = ", ".join(parsers)
        complain(f"command: {command!r} is unknown; allowed: {allowed}; see spp --help")
        sys.exit(EXIT_USAGE)
    return command, parsers[command].parse_intermixed_args(argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command, arguments = parse(argv)
    try:
        _refuse_bytes(argv)
        code = _dispatch(command, arguments)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return code
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough; nothing more may be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if error.strerror is None:
            raise
        what = f"paths.store or --out: {str(error.filename)!r} cannot be used ({error.strerror})"
        if is_full(error):
            complain(f"{what}; allowed: a disk with room; free some and say the same words again")
            return EXIT_FAILED
        complain(f"{what}; allowed: a folder that can be read and written; choose another")
        return EXIT_USAGE
    except KeyboardInterrupt:
        complain("interrupted; finished stages and the last checkpoints stay, the same words go on from there")
        return EXIT_FAILED


def _dispatch(command: str, arguments: argparse.Namespace) -> int:
    if command in _TAKES_OVERRIDES:
        return _OF_WORDS[command](arguments)
    words = getattr(arguments, "words", [])
    _refuse_overrides(words, read=(_STORE_WORD, TRUST_WORD) if command == "retry" else (_STORE_WORD,))
    return _OF_STORE[command](store_root(words), arguments)


def _run(arguments: argparse.Namespace) -> int:
    from spp.cli.commands.run import run, show_config

    if arguments.cfg:
        return show_config(arguments.words, arguments.multirun, arguments.config_dir, as_json=arguments.json)
    return run(arguments.words, arguments.multirun, arguments.config_dir, as_json=arguments.json)


def _plan(arguments: argparse.Namespace) -> int:
    from spp.cli.commands.plan import plan

    return plan(arguments.words, arguments.multirun, arguments.config_dir, as_json=arguments.json)


def _why(arguments: argparse.Namespace) -> int:
    from spp.cli.commands.why import why

    stage = _one_word(arguments.words, "STAGE", at_least=1)
    overrides = [word for word in arguments.words if "=" in word]
    # The store alone is no word of a run.
    planned = overrides if any(not word.startswith(_STORE_WORD) for word in overrides) else []
    return why(store_root(overrides), stage, planned, as_json=arguments.json)


def _help(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.help import show_commands

    return show_commands(arguments.command, as_json=arguments.json)


def _completion(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.completion import completion

    return completion(arguments.shell, as_json=arguments.json)


def _doctor(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.doctor import doctor

    _one_word(arguments.words, "OVERRIDE", at_most=0)
    return doctor(root, as_json=arguments.json)


def _logs(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.logs import logs

    stage = _one_word(arguments.words, "STAGE")
    if arguments.lines < 0:
        raise ValueError(f"--lines: {arguments.lines} is not allowed; allowed: 0 or more; use 100")
    return logs(root, stage, num_lines=arguments.lines, follow=arguments.follow, as_json=arguments.json)


def _unlock(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.unlock import unlock

    return unlock(root, _one_word(arguments.words, "STAGE", at_least=1), as_json=arguments.json)


def _list(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.list import list_sweeps

    _one_word(arguments.words, "OVERRIDE", at_most=0)
    if arguments.num < 0:
        raise ValueError(f"-n: {arguments.num} is not allowed; allowed: 0 or more; use 20")
    return list_sweeps(root, num_sweeps=arguments.num, tag=arguments.tag, as_json=arguments.json)


def _rm(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.rm import rm

    return rm(root, _one_word(arguments.words, "SWEEP", at_least=1, shown_by="spp list"), as_json=arguments.json)


def _gc(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.gc import gc

    _one_word(arguments.words, "OVERRIDE", at_most=0)
    return gc(root, yes=arguments.yes, as_json=arguments.json)


def _diff(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.diff import diff

    keys = [word for word in arguments.words if word and "=" not in word]
    if len(keys) != 2:
        raise ValueError(f"KEY: {len(keys)} are given; allowed: exactly two keys; see spp plan and spp status --json")
    return diff(root, *keys, as_json=arguments.json)


def _export(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.export import ExportRequest, export

    request = ExportRequest(
        member=_one_word(arguments.words, "MEMBER", at_least=1),
        form=arguments.format,
        out=arguments.out,
        opset=arguments.opset,
        int8=arguments.int8,
        force=arguments.force,
    )
    return export(root, request, as_json=arguments.json)


def _path(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.path import show_path

    kinds = ("macs", "params", "units")
    given = {kind: text for kind in kinds if (text := getattr(arguments, kind)) is not None}
    if len(given) > 1:
        raise ValueError(f"--{', --'.join(given)}: {len(given)} are given; allowed: one or none; leave the others out")
    wanted = next(((kind, parse_size(text, f"--{kind}")) for kind, text in given.items()), None)
    return show_path(root, arguments.source, wanted, html=arguments.html, as_json=arguments.json)


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
        num_repair_samples=arguments.repair,
        finetunes=arguments.finetune,
        measures=not arguments.no_measure,
        model=arguments.model,
        weights=arguments.weights,
    )
    return extract(root, words, as_json=arguments.json)


def _pairs(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.pairs import pairs

    return pairs(_one_word(arguments.words, "MODEL", at_least=1, shown_by="spp pairs --help"), as_json=arguments.json)


def _benchmark(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.benchmark import BenchmarkWords, benchmark

    words = BenchmarkWords(
        networks=_words(arguments.words, "DIR|MODEL"),
        runtimes=arguments.runtimes,
        batch_sizes=arguments.batch,
        num_threads=arguments.threads,
        device=arguments.device,
        seconds=arguments.seconds,
        figure=arguments.figure,
        keeps=arguments.keep,
    )
    return benchmark(root, words, as_json=arguments.json)


def _sync(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.sync import sync

    return sync(root, _sweep(arguments), as_json=arguments.json)


def _verify(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.verify import verify

    return verify(root, _sweep(arguments), repair=arguments.repair, as_json=arguments.json)


def _status(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.status import status

    return status(root, _sweep(arguments), as_json=arguments.json)


def _watch(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.watch import watch

    sweep, interval_s = _sweep(arguments), arguments.interval
    return watch(root, sweep, interval_s=interval_s, as_json=arguments.json, html=arguments.html)


def _cancel(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.cancel import cancel

    return cancel(root, _sweep(arguments), as_json=arguments.json)


def _retry(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.retry import retry

    trust, sweep = trusted(arguments.words), _sweep(arguments)
    return retry(root, sweep, as_json=arguments.json, automatic=arguments.automatic, trusted=trust)


def _report(root: Path, arguments: argparse.Namespace) -> int:
    from spp.cli.commands.report import ReportRequest, report

    request = ReportRequest(arguments.name, _sweep(arguments), arguments.source, arguments.format, arguments.out)
    return report(root, request, as_json=arguments.json)


_OF_WORDS: dict[str, Callable[[argparse.Namespace], int]] = {"run": _run, "plan": _plan, "why": _why}
_OF_STORE: dict[str, Callable[[Path, argparse.Namespace], int]] = {
    "status": _status, "watch": _watch, "logs": _logs, "cancel": _cancel, "retry": _retry,
    "list": _list, "rm": _rm, "gc": _gc, "diff": _diff,
    "report": _report, "path": _path, "extract": _extract, "export": _export, "benchmark": _benchmark, "pairs": _pairs,
    "verify": _verify, "unlock": _unlock, "sync": _sync, "doctor": _doctor,
    "completion": _completion, "help": _help,
}  # fmt: skip
assert {*_OF_WORDS, *_OF_STORE} == set(COMMANDS)


def _sweep(arguments: argparse.Namespace) -> str | None:
    """The sweep that is named; None for the newest, or all."""
    return _one_word(arguments.words, "SWEEP") or None


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


def _words(words: Sequence[str], what: str) -> list[str]:
    """The words that are no override, at least one."""
    names = [word for word in words if "=" not in word]
    if not names or "" in words:
        raise ValueError(f"{what}: it is missing; allowed: one or more; name it")
    return names


def _one_word(
    words: Sequence[str], what: str, *, at_least: int = 0, at_most: int = 1, shown_by: str = "spp status"
) -> str:
    """The word that is no override; empty if there is none and need not be."""
    if "" in words:
        # Such as a variable of the shell that is not set: it shall not mean all, or the newest.
        raise ValueError(f"{what}: it is empty; allowed: the beginning of a name or key; name it, or leave it out")
    names = [word for word in words if "=" not in word]
    if len(names) > at_most:
        allowed = "one" if at_most else "none but paths.store=DIR"
        raise ValueError(f"{what}: {' '.join(names)!r} is too much; allowed: {allowed}; leave the others out")
    if len(names) < at_least:
        raise ValueError(f"{what}: it is missing; allowed: one of those that `{shown_by}` shows; name it")
    return names[0] if names else ""


if __name__ == "__main__":
    sys.exit(main())
