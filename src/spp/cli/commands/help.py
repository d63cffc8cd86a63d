"""spp help: the commands."""

import json

from spp.cli.parsers import COMMANDS


def show_commands(*, as_json: bool) -> int:
    """Print a line per command."""
    if as_json:
        print(json.dumps({"commands": COMMANDS}, indent=1))
        return 0
    width = max(map(len, COMMANDS))
    print("usage: spp COMMAND ...\n\nPrune a transformer once, deploy it at any size.\n")
    print("\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))
    print("\nspp COMMAND --help tells more.")
    return 0
