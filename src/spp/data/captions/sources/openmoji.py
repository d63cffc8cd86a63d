"""OpenMoji's drawings with what they are called: 2,465 small colour pictures, each with its name and some of its tags.

They lie in the npm package openmoji (licence CC BY-SA 4.0), which `make openmoji` downloads; nothing of it is run. The
drawings that differ from another one by the tone of the skin alone are left out. Groups of drawings (animals, flags)
keep their shares in train, validation and test.
"""

import hashlib
import importlib.util
import io
import json
import tarfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from spp.data.captions.source import SPLITS, Access, CaptionedImage, Captions, CaptionSplit, SplitName
from spp.data.images.broken import BrokenImageError
from spp.data.split import stratified_split
from spp.text import reason_of

SIZE = 72
"""Pixels of a side, at which the drawings are drawn before they are brought to data.img_size."""
MAX_TAGS = 8
"""Of a drawing, in its second caption."""
_REMEDY = "allowed: openmoji-17.0.0.tgz, as npm has it; run make openmoji, or npm pack openmoji@17.0.0"


def open_captions(access: Access) -> Captions:
    """All drawings.

    Raises:
        ValueError: one line, if the package or what draws it is not there, or the package holds something else.
    """
    if importlib.util.find_spec("resvg_py") is None:
        raise ValueError(
            "data.name: openmoji needs what draws SVG, which is not installed; allowed: other data; or pip install "
            "'spp[openmoji]'"
        )
    file = access.file
    if file is None or not file.is_file():
        raise ValueError(f"data.captions: {str(file)!r} is not there; {_REMEDY}")
    state = file.stat()
    digest, entries, drawings = _read(file, state.st_size, state.st_mtime_ns)
    groups = [entry["group"] for entry in entries]
    rest, test = stratified_split(groups, access.val_fraction, access.split_seed)
    train, val = stratified_split([groups[place] for place in rest], access.val_fraction, access.split_seed)
    chosen: Mapping[SplitName, Any] = {"train": rest[train], "val": rest[val], "test": test}
    splits = {name: _split([entries[place] for place in chosen[name]], drawings) for name in SPLITS}
    facts = {"archive": digest, "drawn_by": f"resvg-py {version('resvg-py')}"}
    return Captions(3, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, splits, facts)


def _split(entries: list[dict[str, str]], drawings: Mapping[str, bytes]) -> CaptionSplit:
    images = [CaptionedImage(entry["hexcode"], _captions(entry), f"drawing {entry['hexcode']}") for entry in entries]
    return CaptionSplit(images, lambda number: _drawn(images[number], drawings))


def _captions(entry: Mapping[str, str]) -> tuple[str, ...]:
    tags = [tag.strip() for tag in (entry["tags"] or entry["openmoji_tags"]).split(",") if tag.strip()]
    return (entry["annotation"], *([" ".join(tags[:MAX_TAGS])] if tags else []))


def _drawn(image: CaptionedImage, drawings: Mapping[str, bytes]) -> Image.Image:
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=drawings[image.name].decode("utf-8"), width=SIZE, height=SIZE)
        with Image.open(io.BytesIO(bytes(png))) as opened:
            drawing = opened.convert("RGBA")
    except (ValueError, OSError) as error:
        reason = reason_of(error)
        raise BrokenImageError(f"data.captions: {image.place} cannot be drawn ({reason}); {_REMEDY}") from None
    paper = Image.new("RGBA", drawing.size, "white")
    return Image.alpha_composite(paper, drawing).convert("RGB")


# A worker process and the stages that follow each other ask for the same.
@cache
def _read(file: Path, size: int, mtime_ns: int) -> tuple[str, list[dict[str, str]], dict[str, bytes]]:
    """Hash of the package, its entries without tones of skin, and the drawings by their code."""
    content = file.read_bytes()
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            found = {member.name: archive.extractfile(member) for member in archive if _is_wanted(member.name)}
            files = {name: stream.read() for name, stream in found.items() if stream is not None}
        listed = json.loads(files["package/data/openmoji.json"])
        entries = [entry for entry in listed if not entry["skintone"]]
        drawings = {entry["hexcode"]: files[f"package/color/svg/{entry['hexcode']}.svg"] for entry in entries}
    except (tarfile.TarError, OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"data.captions: {str(file)!r} does not hold the drawings and their names ({type(error).__name__}); "
            f"{_REMEDY}"
        ) from None
    return hashlib.sha256(content).hexdigest(), entries, drawings


def _is_wanted(name: str) -> bool:
    return name == "package/data/openmoji.json" or name.startswith("package/color/svg/")
