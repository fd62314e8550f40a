"""Any file and any pixel mode becomes RGB; expected pixels by hand with Pillow and NumPy."""

from __future__ import annotations

import contextlib
import struct
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.image_loading import (
    evenly_spaced,
    find_images,
    load_image,
    open_image,
    to_rgb,
)
from mvit_coreml.preprocessing.image_processor import ImageProcessor

pytestmark = pytest.mark.fast


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def gray_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


def assert_pixels(image: Image.Image, expected: np.ndarray) -> None:
    assert image.mode == "RGB"
    assert np.array_equal(np.array(image), expected)


def test_alpha_is_dropped_and_not_composited() -> None:
    pixels = noise(7, 5, 4)
    assert_pixels(to_rgb(Image.fromarray(pixels)), pixels[..., :3])


def test_gray_alpha_is_dropped() -> None:
    pixels = noise(7, 5, 2)
    assert_pixels(to_rgb(Image.fromarray(pixels)), gray_rgb(pixels[..., 0]))


@pytest.mark.parametrize(("premultiplied", "straight"), [("RGBa", "RGBA"), ("La", "LA")])
def test_premultiplied_colours_are_divided_by_their_alpha(
    premultiplied: str, straight: str
) -> None:
    image = Image.fromarray(noise(7, 5, 4)).convert(straight).convert(premultiplied)
    expected = np.array(image.convert(straight))
    expected = expected[..., :3] if straight == "RGBA" else gray_rgb(expected[..., 0])
    assert_pixels(to_rgb(image), expected)


def palette_image() -> tuple[Image.Image, np.ndarray]:
    palette = noise(256, 3)
    indices = np.arange(35, dtype=np.uint8).reshape(7, 5)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette.tobytes())
    image.putdata(indices.ravel().tolist())
    return image, palette[indices]


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(35))])
def test_palette_images_give_their_colours_whatever_is_transparent(
    transparency: int | bytes | None, tmp_path: Path
) -> None:
    image, expected = palette_image()
    path = tmp_path / "palette.png"
    image.save(path, **({} if transparency is None else {"transparency": transparency}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_pixels(load_image(path), expected)


def test_palette_images_with_an_alpha_band_give_their_colours() -> None:
    image, expected = palette_image()
    assert_pixels(to_rgb(image.convert("PA")), expected)


def test_gray_images_with_a_transparent_level_give_that_level(tmp_path: Path) -> None:
    gray = noise(7, 5)
    path = tmp_path / "gray.png"
    Image.fromarray(gray).save(path, transparency=int(gray[0, 0]))
    assert_pixels(load_image(path), gray_rgb(gray))


def test_bilevel_images_are_black_and_white() -> None:
    bits = noise(7, 5) > 127
    assert_pixels(to_rgb(Image.fromarray(bits)), gray_rgb(bits * np.uint8(255)))


def test_cmyk_jpegs_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(noise(16, 16, 4)).convert("CMYK").save(path, quality=95)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
        assert_pixels(load_image(path), np.array(image.convert("RGB")))


def test_lab_images_are_converted_by_colour_management() -> None:
    image = Image.fromarray(np.full((4, 4, 3), (255, 120, 30), np.uint8))
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    difference = np.array(to_rgb(lab)).astype(int) - np.array(image)
    assert abs(difference).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_files_are_scaled_and_not_clipped(suffix: str, tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 256], [32767, 32768, 65406, 65535]], np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    # Round half up of v / 257: 128 / 257 < 0.5 < 129 / 257, 65406 / 257 = 254.498.
    by_hand = np.array([[0, 0, 1, 1], [127, 128, 254, 255]], np.uint8)
    assert_pixels(load_image(path), gray_rgb(by_hand))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bit_byte_orders_give_the_same_pixels(mode: str) -> None:
    values = np.array([[0, 257, 512], [25700, 60000, 65535]])
    order = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (3, 2), values.astype(order).tobytes())
    by_hand = np.array([[0, 1, 2], [100, 233, 255]], np.uint8)
    assert_pixels(to_rgb(image), gray_rgb(by_hand))


@pytest.mark.parametrize(
    ("values", "by_hand"),
    [
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 0.4, 200.5]], np.float32), [0, 0, 201]),
        (np.array([[0, 25700, 60000]], np.float32), [0, 100, 233]),
    ],
    ids=["I-8", "I-16", "I-32", "F-1", "F-8", "F-16"],
)
def test_deep_modes_are_scaled_by_the_smallest_range_that_holds_them(
    values: np.ndarray, by_hand: list[int]
) -> None:
    expected = gray_rgb(np.array([by_hand], np.uint8))
    assert_pixels(to_rgb(Image.fromarray(values)), expected)


@pytest.mark.parametrize("value", [-1, 70000, np.nan, np.inf])
def test_deep_values_without_a_range_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"mode F holds values .* it must hold values from 0 to"):
        to_rgb(Image.fromarray(np.array([[0, value]], np.float32)))


def test_a_file_with_values_that_have_no_range_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heights.tif"
    Image.fromarray(np.array([[0, -5]], np.float32)).save(path)
    assert_refused(path, "mode F holds values from -5 to 0")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_files_are_turned_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(16, 24, 3)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert_pixels(load_image(path), expected)


def test_orientation_six_turns_the_first_column_into_the_top_row(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[0x0112] = 6
    pixels = noise(4, 6, 3)
    Image.fromarray(pixels).save(path, exif=exif)
    assert_pixels(load_image(path), np.rot90(pixels, -1))


def test_an_open_image_is_taken_as_it_lies(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[0x0112] = 6
    pixels = noise(4, 6, 3)
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        assert_pixels(load_image(image), pixels)


def test_exif_that_cannot_be_written_again_does_not_stop_an_image(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112], exif[0x829A] = 3, 0.5
    Image.fromarray(noise(16, 24, 3)).save(path, exif=exif)
    expected = np.array(load_image(path))
    # The second field says it is a 64-bit integer, which Pillow reads but does not write.
    odd = path.read_bytes().replace(b"\x82\x9a\x00\x0c", b"\x82\x9a\x00\x10")
    path.write_bytes(odd)
    with Image.open(path) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert_pixels(load_image(path), expected)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert_pixels(load_image(path), np.full((4, 4, 3), (255, 0, 0), np.uint8))


def test_colour_profiles_are_not_applied(tmp_path: Path) -> None:
    pixels = noise(8, 8, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    path = tmp_path / "profiled.png"
    Image.fromarray(pixels).save(path, icc_profile=profile)
    assert_pixels(load_image(path), pixels)


def test_loading_leaves_an_open_image_alone() -> None:
    image = Image.fromarray(noise(7, 5, 4))
    before = np.array(image)
    load_image(image)
    assert image.mode == "RGBA"
    assert np.array_equal(np.array(image), before)


# Errors


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.jpg", "no such image file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "is not a file")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert_refused(path, r"is empty \(0 bytes\)")


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("this is not an image at all")
    assert_refused(path, "is not an image in a format that Pillow reads")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif", "gif"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(64, 64, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert_refused(path, "cannot be read as an image|not an image in a format")


@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_damaged_files_are_read_or_refused_but_never_crash(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged.{suffix}"
    Image.fromarray(noise(16, 16, 3)).save(path)
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(intact)
        for offset in rng.integers(0, len(intact), 4):
            damaged[offset] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(InputError):
                assert load_image(path).mode == "RGB"


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert_refused(path, "more than 2,000 pixels, which is refused as a possible decompression")


HEIC_HEADER = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


def test_heic_files_name_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(HEIC_HEADER)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert_refused(path, "pip install pillow-heif")


def test_heic_files_are_read_once_the_package_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(HEIC_HEADER)
    decoded = Image.fromarray(noise(4, 6, 3))
    real_open = Image.open

    def register() -> None:
        monkeypatch.setattr(Image, "open", lambda _: decoded)

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    assert Image.open is real_open
    assert_pixels(load_image(path), noise(4, 6, 3))


# What transformers clips or fails on, through the whole processor


def test_deep_and_transparent_images_are_processed_as_their_rgb() -> None:
    processor = ImageProcessor.for_mobilevit(image_size=32)
    deep = np.random.default_rng(0).integers(0, 65536, (45, 58), dtype=np.uint16)
    transparent = noise(45, 58, 4)
    by_hand = [
        (Image.fromarray(deep), gray_rgb(np.floor(deep / 257 + 0.5).astype(np.uint8))),
        (Image.fromarray(transparent), transparent[..., :3]),
        (Image.fromarray(noise(45, 58, 2)), gray_rgb(noise(45, 58, 2)[..., 0])),
    ]
    for image, rgb in by_hand:
        expected = processor.preprocess(Image.fromarray(rgb), return_tensors="np")
        assert np.array_equal(processor.preprocess(image, return_tensors="np"), expected)


def test_open_image_keeps_the_mode_of_the_file(tmp_path: Path) -> None:
    image, _ = palette_image()
    image.save(tmp_path / "palette.png")
    assert open_image(tmp_path / "palette.png").mode == "P"


def test_hidden_files_and_what_macos_leaves_beside_images_are_no_images(tmp_path: Path) -> None:
    names = ("b.JPG", "deep/a.png", "._b.JPG", "deep/._a.png", ".thumbnails/a.png", "notes.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert listed == ["b.JPG", "deep/a.png"]
    (tmp_path / "b.JPG").unlink()
    (tmp_path / "deep/a.png").unlink()
    with pytest.raises(InputError, match=r"holds no image; supported are \.avif, \.bmp"):
        find_images(tmp_path)


def test_limit_spreads_images_evenly() -> None:
    assert evenly_spaced(10, 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced(10, 3) == [0, 3, 6]
    assert evenly_spaced(3, 10) == evenly_spaced(3, None) == [0, 1, 2]
    with pytest.raises(InputError, match="at least 1"):
        evenly_spaced(3, 0)
