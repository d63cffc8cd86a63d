import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.data.images.tar import TarFile

PARTS = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1, max_size=70)
NAMES = st.lists(PARTS.filter(lambda part: part.strip(".")), min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CONTTYPE])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=1500)), min_size=1, max_size=8)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])


def contents_of(file):
    archive = TarFile(file)
    try:
        return archive.contents()
    finally:
        archive.close()


def archive_of(members, format):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format, pax_headers={"comment": "all of them"}) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, name[::-1] if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if info.isreg() else 0
            try:
                archive.addfile(info, io.BytesIO(content))
            except (ValueError, UnicodeEncodeError):
                assert format == tarfile.USTAR_FORMAT  # which has no room for long names
    return stream.getvalue()


@given(MEMBERS, FORMATS)
def test_members_are_those_of_tarfile(tmp_path_factory, members, format):
    file = tmp_path_factory.mktemp("tar") / "a.tar"
    content = archive_of(members, format)
    file.write_bytes(content)
    with tarfile.open(file) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    contents = contents_of(file)
    assert contents.damage is None
    assert [(name.decode(), offset, length) for name, offset, length in contents.members] == expected


@given(MEMBERS, FORMATS, st.data())
def test_a_cut_archive_gives_what_is_whole_and_says_that_it_is_cut(tmp_path_factory, members, format, data):
    file = tmp_path_factory.mktemp("tar") / "a.tar"
    content = archive_of(members, format)
    file.write_bytes(content)
    whole = contents_of(file).members
    end = max((m.offset + m.length for m in whole), default=0)
    num_bytes = data.draw(st.integers(0, max(0, end - 1)))
    file.write_bytes(content[:num_bytes])
    contents = contents_of(file)
    assert contents.damage is not None
    assert contents.members == [m for m in whole if m.offset + m.length <= num_bytes]


def test_the_cut_file_is_named(tmp_path, tar_writer):
    file = tmp_path / "a.tar"
    tar_writer(file, {"a.jpg": b"a" * 2000, "b.jpg": b"b" * 2000})
    file.write_bytes(file.read_bytes()[:4000])
    assert contents_of(file).damage == "ends in the middle of 'b.jpg'"


def test_a_header_that_is_none_is_found(tmp_path, tar_writer):
    file = tmp_path / "a.tar"
    tar_writer(file, {"a.jpg": b"a" * 512, "b.jpg": b"b" * 512})
    content = bytearray(file.read_bytes())
    content[1024:1124] = b"x" * 100
    file.write_bytes(content)
    contents = contents_of(file)
    assert [member.name for member in contents.members] == [b"a.jpg"]
    assert contents.damage == "has no header of a file at byte 1024"


@pytest.mark.parametrize("content", [b"", b"no archive at all"])
def test_something_that_is_no_archive(tmp_path, content):
    file = tmp_path / "a.tar"
    file.write_bytes(content)
    assert contents_of(file).damage == "ends without the mark of an end"
