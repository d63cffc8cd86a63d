"""spp help: the commands, or the help of one."""

import json

from spp.cli.parsers import COMMANDS, build_parsers


def show_commands(command: str | None, *, as_json: bool) -> int:
    """Print a line per command, or all about one."""
    text = "" if command is None else build_parsers()[command].format_help()
    if as_json:
        print(json.dumps({"commands": COMMANDS if command is None else {command: text}}, indent=1))
    elif command is not None:
        print(text, end="")
    else:
        width = max(map(len, COMMANDS))
        print("usage: spp COMMAND ...\n\nPrune a transformer once, deploy it at any size.\n")
        print("\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()))
        print("\nspp COMMAND --help tells more.")
    return 0
