"""root/data/train-*.parquet (or root/train-*.parquet) with images and labels: a set from the Hugging Face hub.

An image's position is its row in the files as they are sorted by name. A parquet file gives out whole row groups,
usually of 100 images, so an order that is random over the set would read each image a hundred times over. The
encoded images are therefore copied once, file by file, into flat files of the cache folder (spp.data.images.pack).
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spp.data.files import stamp_of
from spp.data.handles import FileHandles
from spp.data.images.broken import decode, is_of_the_file, reading
from spp.data.images.columns import ColumnsError, find_columns, is_struct
from spp.data.images.index import Index, IndexedImages, Listing, Row, short_hash
from spp.data.images.pack import ensure_packed, read_packed
from spp.data.images.source import Labels, SplitName


@dataclass(frozen=True)
class ParquetSplit:
    """Images in tables; `packs` are their flat copies, made when first needed; labels have shape (N,)."""

    files: list[Path]
    packs: list[Path]
    index: Index
    labels: Labels
    handles: FileHandles
    columns: list[str | None]
    """The columns that are asked for: image and label; empty where they are found out."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.index[index]
        file, pack, start = self.files[row["file"]], self.packs[row["file"]], int(row["start"])
        what = f"{file}: {os.fsdecode(row['name'])}"
        with reading(what):
            try:
                content = read_packed(self.handles, pack, start)
            except FileNotFoundError:
                ensure_packed(file, _image_column(file, self.columns), pack)
                content = read_packed(self.handles, pack, start)
        return decode(content, what), int(self.labels[index])


class ParquetImages(IndexedImages):
    """A root in this form."""

    suffix = ".parquet"
    contents = (
        "train-*.parquet and validation-*.parquet, or the same in data/, with the columns image and label (or "
        "data.image_column, data.label_column)"
    )

    def open_split(self, name: SplitName) -> ParquetSplit:
        """All images of a split.

        Raises:
            ValueError: if there is no cache folder, or no space in it for the images not copied yet.
        """
        index, files = self.index(name), self.files[name]
        packs = self._packs(files)
        self._check_space([file for file, pack in zip(files, packs, strict=True) if not pack.exists()])
        return ParquetSplit(files, packs, index, np.ascontiguousarray(index["label"]), FileHandles(), self.columns)

    def _packs(self, files: list[Path]) -> list[Path]:
        if self.cache is None:
            raise ValueError(
                "data.format: parquet needs a folder for flat copies of its images, and None is given; allowed: a "
                "cache folder; pass cache=..., or keep the images as files or tar shards"
            )
        root = str(self.root.resolve())
        folder = self.cache / f"images-{short_hash([root, *self.columns] if self.columns else root)}"
        return [folder / f"{file.stem}-{short_hash(stamp_of([file], self.root))}.images" for file in files]

    def _check_space(self, files: list[Path]) -> None:
        assert self.cache is not None
        self.cache.mkdir(parents=True, exist_ok=True)
        num_bytes, num_free = sum(file.stat().st_size for file in files), shutil.disk_usage(self.cache).free
        if num_bytes > num_free:
            raise ValueError(
                f"paths.store: {str(self.cache)!r} has {num_free / 1e9:.1f} GB free, and the images of "
                f"{str(self.root)!r}, copied there once, take {num_bytes / 1e9:.1f} GB; allowed: a store with more; "
                "free some, or keep the images as files or tar shards"
            )

    def list_file(self, file: Path) -> Listing:
        """The rows of a table; reads labels and names and no image."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as table:
                schema = table.schema_arrow
                columns = find_columns(schema, *self.columns)
                path = f"{columns.image}.path"
                cells = table.read(columns=[columns.label, path], use_threads=False)
        except ColumnsError as error:
            raise ValueError(f"data.root: {str(file)!r} {error}") from None
        except (pa.ArrowException, OSError) as error:
            if not is_of_the_file(error):
                raise
            return Listing([], [f"{str(file)!r} cannot be read as parquet ({str(error).splitlines()[0]})"])
        labels = cells[columns.label].to_pylist()
        names = _names(cells, columns.image)
        return Listing(
            [
                Row(row, 0, -1 if label is None else label, name)
                for row, (label, name) in enumerate(zip(labels, names, strict=True))
            ],
            [],
        )


def _names(cells: Any, image_column: str) -> list[bytes]:
    """The path that the image had when the table was made, or its row."""
    if image_column not in cells.column_names:
        return [b"row %d" % row for row in range(cells.num_rows)]
    paths = [cell and cell["path"] for cell in cells[image_column].to_pylist()]
    return [os.fsencode(path) if path else b"row %d" % row for row, path in enumerate(paths)]


def _image_column(file: Path, columns: list[str | None]) -> str:
    """The column of encoded images, dotted where they are a field of a struct."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(file)
    image = find_columns(schema, *columns).image
    return f"{image}.bytes" if is_struct(schema, image) else image
