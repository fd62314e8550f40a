"""A package that keeps few of its checkpoint's answers is not written, whatever its bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packages import image, small_checkpoint
from pairwise import pairwise

from mvit_coreml import ConvertOptions, build_model, convert
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.palettized_weight import BIT_WIDTHS
from mvit_coreml.compression.plan import PlanValues
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.workflows import convert as conversion
from mvit_coreml.workflows.build_package import PlainPackage, build_plain_package, compress_plain
from mvit_coreml.workflows.choose_palettes import Palettes
from mvit_coreml.workflows.package_options import fill_in

FAMILY = "mobilenet_v2"
CLASSIFIER, SEGMENTER = "image-classification", "semantic-segmentation"
OPTIONS = ConvertOptions(ios=18, bits=8, kmeans_only=True)
PHOTOS = [image(seed=seed) for seed in range(8)]


@pytest.fixture(scope="module", params=[CLASSIFIER, SEGMENTER])
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, PlainPackage]:
    """A task, and the package without palettes of its checkpoint."""
    checkpoint = small_checkpoint(FAMILY, request.param)
    options = fill_in(replace(OPTIONS, bits=None, kmeans_only=False), checkpoint)
    folder = tmp_path_factory.mktemp("plain")
    return request.param, build_plain_package(checkpoint, options, folder)


@pytest.fixture
def task(plain: tuple[str, PlainPackage], monkeypatch: pytest.MonkeyPatch) -> str:
    """A task; whatever is converted for it gives nearly all images the same wrong class.

    Its palettes are good, and the file computes what is stored in it; but a bias lies far from
    where it was, which fitting may do for a reason.
    """
    task, package = plain
    model = build_model(small_checkpoint(FAMILY, task)).eval()
    with torch.inference_mode():
        logits = model(torch.rand(4, 3, 64, 64)).logits
    wrong = int(logits.transpose(0, 1).flatten(1).mean(1).argmin())
    constants = DifferentiableFunction(load_package(package.path)).constants
    ((name, bias),) = [
        (name, value) for name, value in constants.items() if value.shape == (logits.shape[1],)
    ]
    moved = bias.numpy().astype(np.float16)
    moved[wrong] += 100

    def spoiled(plain: PlainPackage, palettes: Palettes, folder: Path, **options: Any) -> Path:
        plan = replace(palettes.plan, constants="tuned")
        values = PlanValues(constants={name: moved})
        return compress_plain(plain, Palettes(plan, values), folder, **options)

    monkeypatch.setattr(conversion, "build_plain_package", lambda *_, **__: package)
    monkeypatch.setattr(conversion, "compress_plain", spoiled)
    return task


@pytest.mark.parametrize(
    ("plain", "bits", "photos"),
    pairwise([CLASSIFIER, SEGMENTER], BIT_WIDTHS, [None, PHOTOS]),
    indirect=["plain"],
    ids=lambda value: "photos" if value is PHOTOS else str(value),
)
def test_it_is_refused_at_every_bit_width_unless_less_is_promised(
    task: str, bits: int, photos: list[Any] | None, tmp_path: Path
) -> None:
    checkpoint, path = small_checkpoint(FAMILY, task), tmp_path / "x.mlpackage"
    options = replace(OPTIONS, bits=bits)
    answers = "pixels" if task == SEGMENTER else "answers"
    kept = rf"\d+\.\d% of the {answers} \(.* to .*\).* on 8 photos"
    promised, enough = "at least 97% of the answers", Promise(min_agreement=0.0)
    if photos is None:
        kept, promised = (
            r"-\d+\.\d dB on 12 synthetic pictures",
            f"at least {32 if task == SEGMENTER else 22} dB",
        )
        enough = Promise(min_snr=-100)
    expected = (
        rf"x\.mlpackage: not written, as it keeps {kept}.* of the checkpoint, where {promised}"
    )
    with pytest.raises(GateError, match=expected) as caught:
        convert(checkpoint, options, path, images=photos)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    package = convert(checkpoint, replace(options, promise=enough), path, images=photos)
    assert package.parity is not None
    assert package.parity.answers_alike, (package.parity.gates, package.parity.estimate)
    # It is a file as good as any other: it was the answers that spoke against it.
    assert package.parity.sound
    assert path.is_dir()


def test_a_package_below_its_promise_can_be_kept_and_says_so(task: str, tmp_path: Path) -> None:
    checkpoint, path = small_checkpoint(FAMILY, task), tmp_path / "x.mlpackage"
    package = convert(checkpoint, OPTIONS, path, images=PHOTOS, keep_failed=True)
    assert package.parity is not None
    assert (package.parity.sound, package.parity.faithful) == (True, "broken")
    assert not package.parity.passed
    assert any(note.startswith("it keeps ") for note in package.notes)


@pytest.mark.parametrize("photos", [None, PHOTOS], ids=["synthetic", "photos"])
def test_one_bit_of_kmeans_alone_is_too_little_and_what_is_more_is_named(
    photos: list[Any] | None, tmp_path: Path
) -> None:
    options = replace(OPTIONS, bits=1, promise=None)
    with pytest.raises(GateError, match=r"not written, as it keeps .*; leave out --no-fit to keep"):
        convert(small_checkpoint(FAMILY), options, tmp_path / "x.mlpackage", images=photos)
    assert list(tmp_path.iterdir()) == []
