"""Pictures that the demo's tests share, drawn once."""

from __future__ import annotations

import pytest
from digit_pictures import Pictures, draw


@pytest.fixture(scope="session")
def held_out() -> Pictures:
    """510 pictures: every held-out scan once, and ten of them again."""
    return draw("held-out", 510, seed=3)
