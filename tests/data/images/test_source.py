from __future__ import annotations

import pytest

from diffusion.data.images.source import MAX_PIXELS, check_size


def test_images_up_to_the_limit_are_read() -> None:
    check_size(MAX_PIXELS // 8, 8)
    with pytest.raises(ValueError, match="at most 64 million are read"):
        check_size(MAX_PIXELS // 8 + 1, 8)
