"""The plot of the size-quality curve: a mark for every figure, and the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import Share
from mvit_coreml.workflows.measure_tradeoff import Tradeoff, TradeoffPoint
from mvit_coreml.workflows.write_tradeoff import plot_tradeoff, write_tradeoff

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"


def point(palettes: str, plan: str, size: int, snr: float, share: float | None) -> TradeoffPoint:
    return TradeoffPoint(
        name=f"{plan}-{palettes}-{size}",
        plan=plan,  # type: ignore[arg-type]
        palettes=palettes,  # type: ignore[arg-type]
        bits=None,
        average_bits=None,
        size=size,
        snr=snr,
        agreement=share,
        kl=None if share is None else 0.0,
        accuracy=None if share is None else Share.of(round(100 * share), 100),
        seconds=0.0,
        applied=None,
    )


def curve(labelled: bool = True) -> Tradeoff:
    share = (lambda value: value) if labelled else (lambda value: None)
    points = (
        point("none", "none", 2_000_000, 55.0, share(1.0)),
        point("kmeans", "uniform", 1_000_000, 30.0, share(0.9)),
        point("kmeans", "uniform", 500_000, 10.0, share(0.5)),
        point("coremltools", "uniform", 1_000_000, 29.0, share(0.9)),
        point("fitted", "uniform", 1_000_000, 40.0, share(0.95)),
        point("fitted", "mixed", 900_000, 41.0, share(0.96)),
        point("tuned", "mixed", 900_000, 43.0, share(0.97)),
        point("tuned", "uniform", 900_000, 42.0, share(0.97)),
    )
    return Tradeoff(
        source="owner/model",
        ios=17,
        images=100,
        synthetic=False,
        fitted_to=40,
        dataset="labelled" if labelled else None,
        metric="top1" if labelled else None,
        reference_accuracy=Share.of(98, 100) if labelled else None,
        points=points,
        sensitivities=(),
    )


@pytest.mark.parametrize(
    ("labelled", "panels"), [(True, ("snr", "agreement", "accuracy")), (False, ("snr",))]
)
def test_every_panel_has_a_mark_for_every_point(labelled: bool, panels: tuple[str, ...]) -> None:
    root = ElementTree.fromstring(plot_tradeoff(curve(labelled), ".svg"))
    groups = {group.get("id", ""): group for group in root.iter(f"{SVG}g")}
    for panel in panels:
        lines = {name: group for name, group in groups.items() if name.startswith(f"{panel}-")}
        assert set(lines) == {
            f"{panel}-{series}"
            for series in (
                "no-palettes",
                "k-means",
                "coremltools",
                "fitted",
                "tuned",
                "mixed-bits-fitted",
                "mixed-bits-tuned",
            )
        }
        places = [
            (name, use.get("x"), use.get("y"))
            for name, group in lines.items()
            for use in group.iter(f"{SVG}use")
            if use.get(LINK)
        ]
        assert len(places) == len(set(places)) == 8
    assert {name.split("-")[0] for name in groups if "fitted" in name} == set(panels)


def test_larger_packages_stand_further_right_and_better_ones_higher() -> None:
    root = ElementTree.fromstring(plot_tradeoff(curve(), ".svg"))
    (line,) = (group for group in root.iter(f"{SVG}g") if group.get("id") == "snr-k-means")
    (left_x, left_y), (right_x, right_y) = (
        (float(use.get("x", "")), float(use.get("y", ""))) for use in line.iter(f"{SVG}use")
    )
    assert left_x < right_x
    assert left_y > right_y  # 10 dB lies below 30 dB


def test_the_same_figures_give_the_same_bytes() -> None:
    for suffix in (".svg", ".png"):
        first = plot_tradeoff(curve(), suffix)
        assert plot_tradeoff(curve(), suffix) == first
    assert first.startswith(b"\x89PNG")


def test_another_ending_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.svg or \.png"):
        write_tradeoff(curve(), tmp_path / "curve", plot_suffixes=(".svg", ".pdf"))
    assert list(tmp_path.iterdir()) == []
