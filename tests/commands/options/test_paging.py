"""What the page is given on the command line."""

from __future__ import annotations

from pathlib import Path

import tyro

from diffusion.commands.options import Page


def test_the_page_shows_the_runs_of_this_folder_to_this_machine() -> None:
    assert tyro.cli(Page, args=[]) == Page(Path("runs"), "127.0.0.1", None, None, False)


def test_all_of_it_can_be_said() -> None:
    given = ["elsewhere", "--host", "0.0.0.0", "--port", "80", "--token", "correct-horse", "--open"]
    assert tyro.cli(Page, args=given) == Page(Path("elsewhere"), "0.0.0.0", 80, "correct-horse", True)
