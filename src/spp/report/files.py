"""The files of reports: tables as text, drawings as pictures with their data, and one page for all of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spp.record.record import Record
from spp.report.published import Published
from spp.report.reports import Part
from spp.report.table_text import to_csv, to_latex, to_markdown
from spp.store.atomic import write_text

if TYPE_CHECKING:
    from spp.report.drawing import Drawing

TEXTS = {"md": to_markdown, "csv": to_csv, "tex": to_latex}
PICTURES = ("png", "pdf")


@dataclass(frozen=True)
class Files:
    """Where to write and in which formats; `page_name` is the stem of the page."""

    folder: Path
    formats: Sequence[str]
    page_name: str

    def write(self, parts: Sequence[Part], record: Record, published: Published) -> Iterator[Path]:
        """Write everything, naming each file once it is there; what several reports share is written once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = {part.report.name: self._pictures(part) for part in parts}
        self._make_pictures(parts, pictures)
        written: set[str] = set()
        for part in parts:
            yield from self._write_tables(part)
            yield from self._save([one for one in pictures[part.report.name] if one.name not in written], part)
            written |= {drawing.name for drawing in pictures[part.report.name]}
        if "html" in self.formats:
            yield self._write_page(parts, record, published)

    @property
    def _suffixes(self) -> list[str]:
        return [suffix for suffix in PICTURES if suffix in self.formats]

    def _pictures(self, part: Part) -> "list[Drawing]":
        """What is saved as pictures: the drawings, or where there are none the tables themselves."""
        if not self._suffixes:
            return []
        if part.drawings:
            return list(_named_apart(part))
        from spp.report.figures import table_picture

        return [table_picture.draw(table) for table in part.tables]

    def _make_pictures(self, parts: Sequence[Part], pictures: "Mapping[str, Sequence[Drawing]]") -> None:
        """Make the pictures of files and page beforehand, all at a time."""
        from spp.report.parallel_pictures import make_pictures

        shown = [drawing for part in parts for drawing in part.drawings] if "html" in self.formats else []
        saved = [drawing for drawings in pictures.values() for drawing in drawings]
        formats = [*self._suffixes, *(["png"] if shown and "png" not in self._suffixes else [])]
        make_pictures([*saved, *shown], formats)

    def _write_tables(self, part: Part) -> Iterator[Path]:
        for table in part.tables:
            for suffix, as_text in TEXTS.items():
                if suffix in self.formats:
                    file = self.folder / f"{table.name}.{suffix}"
                    write_text(file, as_text(table), durable=False)
                    yield file

    def _save(self, drawings: "Sequence[Drawing]", part: Part) -> Iterator[Path]:
        """Pictures, with their data beside them unless they are those of a table, whose csv has them."""
        from spp.report.drawing import picture, tidy_csv

        for drawing in drawings:
            for suffix in self._suffixes:
                file = self.folder / f"{drawing.name}.{suffix}"
                file.write_bytes(picture(drawing, suffix))
                yield file
            if part.drawings:
                file = self.folder / f"{drawing.name}.csv"
                file.write_text(tidy_csv(drawing.data))
                yield file

    def _write_page(self, parts: Sequence[Part], record: Record, published: Published) -> Path:
        from spp.report.html import page

        file = self.folder / f"{self.page_name}.html"
        write_text(file, page(record, published, parts), durable=False)
        return file


def _named_apart(part: Part) -> "Iterator[Drawing]":
    """The drawings, none named as a table: the data of a picture lie beside it and must not take a table's place."""
    taken = {table.name for table in part.tables}
    for drawing in part.drawings:
        yield replace(drawing, name=f"{drawing.name}-figure") if drawing.name in taken else drawing
