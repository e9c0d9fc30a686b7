"""The options of import."""

from __future__ import annotations

import tyro

from diffusion.commands.options import Import


def test_an_address_stays_as_it_is_written_and_all_else_is_that_of_the_files() -> None:
    assert tyro.cli(Import, args=["hf://owner/name@v1"]) == Import("hf://owner/name@v1")
    found = tyro.cli(Import, args=["model.pt", "--flags=--image_size 64", "--size", "8x16"])
    assert found == Import("model.pt", flags="--image_size 64", size="8x16")
