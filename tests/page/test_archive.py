"""All files of a job as one."""

from __future__ import annotations

import zipfile
from pathlib import Path

from diffusion.page.archive import archive


def test_it_holds_the_files_as_they_are_and_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "a.png").write_bytes(b"one")
    (tmp_path / "b.gif").write_bytes(b"two")
    path = archive(tmp_path, ["result/a.png", "b.gif"])
    with zipfile.ZipFile(path) as made:
        assert {name: made.read(name) for name in made.namelist()} == {"a.png": b"one", "b.gif": b"two"}
    before = path.stat().st_mtime_ns
    (tmp_path / "b.gif").write_bytes(b"other")
    assert archive(tmp_path, ["result/a.png", "b.gif"]).stat().st_mtime_ns == before
    assert not [*tmp_path.glob(".tmp-*")]
