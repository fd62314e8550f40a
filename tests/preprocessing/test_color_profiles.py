import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import DISPLAY_P3, SRGB, gray_profile, p3_to_srgb, rgb_profile

from mvit_coreml.preprocessing.image_loading import foreign_profile, to_srgb

pytestmark = pytest.mark.fast

P3 = rgb_profile(DISPLAY_P3, "Display P3 by hand")


def with_profile(tmp_path, image, profile):
    path = tmp_path / "image.png"
    image.save(path, icc_profile=profile)
    return Image.open(path)


def test_another_profile_is_named(tmp_path):
    found = foreign_profile(with_profile(tmp_path, Image.new("RGB", (2, 2)), P3))
    assert (found.name, found.mode) == ("Display P3 by hand", "RGB")


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        None,
        b"no profile at all",
        gray_profile(1.0),  # in a colour image
    ],
)
def test_srgb_none_damaged_and_misplaced_profiles_change_nothing(tmp_path, profile):
    assert foreign_profile(with_profile(tmp_path, Image.new("RGB", (2, 2)), profile)) is None


@pytest.mark.parametrize(("gamma", "counts"), [(2.2, False), (1.8, True)])
def test_srgbs_primaries_count_only_with_a_curve_unlike_its_own(tmp_path, gamma, counts):
    profile = rgb_profile(SRGB, "nearly sRGB", gamma)
    found = foreign_profile(with_profile(tmp_path, Image.new("RGB", (2, 2)), profile))
    assert (found is not None) == counts


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_converted_as_by_hand(tmp_path, mode):
    colors = [(200, 100, 50), (30, 180, 90), (64, 64, 64), (255, 0, 0), (120, 130, 250)]
    image = Image.fromarray(np.array([colors], np.uint8)).convert(
        mode, palette=Image.Palette.ADAPTIVE
    )
    opened = with_profile(tmp_path, image, P3)
    converted = to_srgb(opened, foreign_profile(opened))
    expected = [p3_to_srgb(color) for color in colors]
    assert converted.mode == "RGB"
    np.testing.assert_allclose(np.asarray(converted)[0].astype(int), expected, atol=2)
    assert np.abs(np.array(expected) - np.array(colors)).max() > 20


def test_gray_is_converted_by_its_own_profile(tmp_path):
    opened = with_profile(tmp_path, Image.new("L", (2, 2), 64), gray_profile(1.0))
    converted = to_srgb(opened, foreign_profile(opened))
    # Linear light of 64 / 255 is encoded as 1.055 v^(1 / 2.4) - 0.055.
    expected = round(255 * (1.055 * (64 / 255) ** (1 / 2.4) - 0.055))
    np.testing.assert_allclose(np.asarray(converted)[0, 0].astype(int), expected, atol=2)
