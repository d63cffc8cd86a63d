"""spp diff: in which fields two stages differ."""

import json
from pathlib import Path

from spp.cli.difference_table import difference_rows, difference_table
from spp.cli.specs import Specs
from spp.cli.table import make_console
from spp.plan.compare import differences
from spp.store.store import Store


def diff(root: Path, left: str, right: str, *, as_json: bool) -> int:
    """Print the fields in which two stages and what they were made from differ.

    Raises:
        ValueError: one line, if a key begins no stage or several.
    """
    specs = Specs(Store(root))
    one, other = specs.find(left), specs.find(right)
    found = differences(one, other, specs.of)
    if as_json:
        names = {side: {"kind": spec["kind"], "key": spec["key"]} for side, spec in (("left", one), ("right", other))}
        print(json.dumps({**names, "differences": difference_rows(found)}, indent=1))
        return 0
    console = make_console()
    titles = [f"{spec['kind']} {spec['key'][:8]}" for spec in (one, other)]
    if not found:
        console.print(f"{titles[0]} is {titles[1]}: equal in every field that a key hashes")
    else:
        console.print(difference_table(found, *titles))
    return 0
