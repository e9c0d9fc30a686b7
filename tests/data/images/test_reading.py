"""Which members of a container are images that a person means, and what becomes of the others."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from diffusion.data.images import store
from diffusion.data.images.container import Member
from diffusion.data.images.decoding import Header
from diffusion.data.images.encoding import png_text
from diffusion.data.images.folder import Folder, FolderWalk
from diffusion.data.images.junk import OWN
from diffusion.data.images.reading import Failed, Images, Read, read
from tests.bad_images import RED, solid

HEADER = Header(8, 8, "RGB", "PNG", 1)


def results(*own: bool) -> list[Read | Failed]:
    return [Read(Member(str(i)), HEADER, b"", each) for i, each in enumerate(own)]


def kept(images: Images) -> list[str]:
    return [each.member.path for each in images]


def walk(folder: Path) -> FolderWalk:
    return FolderWalk(folder, ordered=True)


def test_results_are_dropped_wherever_they_lie(tmp_path: Path) -> None:
    for own in ((True, False, True), (False, True, True), (True, True, False)):
        images = Images(results(*own), walk(tmp_path))
        assert kept(images) == [str(own.index(False))]
        assert images.walk.skipped == {OWN: 2} and not images.only_results


def test_results_alone_are_kept(tmp_path: Path) -> None:
    images = Images(results(True, True), walk(tmp_path))
    assert kept(images) == ["0", "1"]
    assert not +images.walk.skipped and images.only_results


def test_failures_are_counted_by_format_or_named(tmp_path: Path) -> None:
    failed = [Failed("a", "damaged", False), Failed("b", "x", False, ".psd"), Failed("c", "busy", True)]
    images = Images([*failed[:2], *results(False)], walk(tmp_path))
    assert kept(images) == ["0"] and images.lasting
    assert images.problems == [("a", "damaged")] and images.walk.unread[".psd"].count == 1
    assert not [*Images([failed[2]], walk(tmp_path))] and images.lasting
    passing = Images(failed, walk(tmp_path))
    assert not [*passing] and not passing.lasting


def test_members_are_read_with_their_hash(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.png")
    solid(RED).save(tmp_path / "own.png", pnginfo=png_text({}))
    (tmp_path / "b.jpg").write_bytes(b"8BPS" + bytes(200))
    (tmp_path / "c.jpg").write_bytes(b"words")
    folder = Folder(tmp_path)
    found = read(folder, None, Member("a.png"))
    assert isinstance(found, Read) and not found.own
    assert found.digest == store.digest(BytesIO((tmp_path / "a.png").read_bytes()))
    own = read(folder, None, Member("own.png"))
    assert isinstance(own, Read) and own.own
    psd, words, gone = (read(folder, None, Member(name)) for name in ("b.jpg", "c.jpg", "d.jpg"))
    assert isinstance(psd, Failed) and psd.suffix == ".psd"
    assert isinstance(words, Failed) and (words.suffix, words.transient) == (None, False)
    assert isinstance(gone, Failed) and gone.transient
    assert read(folder, lambda member: (HEADER, b"known"), Member("a.png")) == Read(Member("a.png"), HEADER, b"known")
