import numpy as np
import pytest
from PIL import Image

from mvit_coreml.visualization.segmentation_colors import LegendEntry, add_legend

pytestmark = pytest.mark.fast

RED, BLUE = (250, 10, 20), (5, 20, 240)


def picture(height=120, width=300):
    return np.full((height, width, 3), 128, np.uint8)


def test_the_picture_stays_as_it_is_above_its_legend():
    pixels = np.random.default_rng(0).integers(0, 256, (120, 300, 3), dtype=np.uint8)
    result = add_legend(pixels, [LegendEntry("sky", RED)])
    assert result.shape[0] > 120
    assert result.shape[1:] == (300, 3)
    np.testing.assert_array_equal(result[:120], pixels)
    np.testing.assert_array_equal(add_legend(pixels, []), pixels)


def squares(result, color, top):
    """Rows and columns of a colour below the picture."""
    rows, columns = np.nonzero((result[top:] == color).all(-1))
    return rows, columns


def test_every_entry_has_a_square_of_its_colour_in_order_and_text_beside_it():
    result = add_legend(picture(), [LegendEntry("red", RED), LegendEntry("blue", BLUE)])
    _, red = squares(result, RED, 120)
    rows, blue = squares(result, BLUE, 120)
    assert red.max() < blue.min()
    text = result[120 + rows.min() : 121 + rows.max(), blue.max() + 3 :]
    assert (text.min(-1) < 100).any()


def test_entries_that_do_not_fit_into_a_row_begin_another():
    entries = [LegendEntry("a long description", RED), LegendEntry("of another colour", BLUE)]
    wide, narrow = (add_legend(picture(120, width), entries) for width in (600, 160))
    assert set(squares(wide, RED, 120)[0]) == set(squares(wide, BLUE, 120)[0])
    assert squares(narrow, RED, 120)[0].max() < squares(narrow, BLUE, 120)[0].min()


def test_a_picture_narrower_than_an_entry_is_widened():
    entry = LegendEntry("a text that is wider than the picture", RED)
    result = add_legend(picture(20, 20), [entry])
    assert result.shape[1] > 150
    np.testing.assert_array_equal(result[:20, :20], picture(20, 20))
    # Nothing is cut off at the right.
    assert (result[20:, -1] == 255).all()


def test_the_same_legend_is_drawn_for_images_and_arrays():
    entries = [LegendEntry("Größe 3 µm", BLUE)]
    from_array = add_legend(picture(), entries)
    np.testing.assert_array_equal(add_legend(Image.fromarray(picture()), entries), from_array)
