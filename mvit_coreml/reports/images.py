"""The images of a report with both answers side by side."""

from __future__ import annotations

from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.markup import Html, element
from mvit_coreml.reports.sections import section
from mvit_coreml.reports.tables import classes_seen
from mvit_coreml.reports.thumbnails import difference_uri, map_uri, photo_uri
from mvit_coreml.reports.wording import count, decibels, percent, probability
from mvit_coreml.validation.samples import Ranking, Sample

# Classes of a legend; those with fewer pixels are only counted.
_LEGEND = 10
# Images that are seen at once.
_UNFOLDED = 6


def images_section(report: Report) -> Html | None:
    """Return every recorded image with both answers; those that agree least come first."""
    parity = report.parity
    if parity is None or parity.recording is None or not parity.recording.samples:
        return None
    samples = parity.recording.samples
    maps = samples[0].maps is not None
    cards = [_map_card(report, sample) if maps else _card(report, sample) for sample in samples]
    kind = "cards wide-cards" if maps else "cards"
    # One more in a fold would save nothing.
    shown = _UNFOLDED if len(cards) > _UNFOLDED + 1 else len(cards)
    folded = element(
        "details",
        element("summary", f"{len(cards) - shown} more images"),
        element("div", *cards[shown:], class_=kind),
    )
    return section(
        "Images",
        element("p", _caption(parity.images, samples), class_="quiet"),
        element("div", *cards[:shown], class_=kind),
        folded if len(cards) > shown else None,
    )


def _caption(images: int, samples: tuple[Sample, ...]) -> str:
    total = count(images, "image")
    shown = f"{len(samples)} of {total}" if len(samples) < images else f"All {total}"
    shown = shown if images > 1 else "The only image"
    shown += ", as the model sees them"
    if samples[0].maps is not None:
        return f"{shown}. The maps that differ most come first; differing pixels are orange."
    differing = sum(sample.agrees < 1 for sample in samples)
    if not differing:
        return f"{shown}. Both give the same top class to every one of them."
    return f"{shown}. Those with different top classes come first: {differing} of the ones shown."


def _card(report: Report, sample: Sample) -> Html:
    differs = sample.agrees < 1
    answers = None
    if sample.reference:
        answers = element(
            "div",
            _ranking(report, "PyTorch", sample.reference),
            _ranking(report, "Package", sample.package),
            class_="ranking",
        )
    return element(
        "article",
        _header(sample.image, "✗ differs" if differs else decibels(sample.snr)),
        element("div", element("div", _photo(sample)), answers, class_="answers"),
        class_="card bad" if differs else "card",
    )


def _map_card(report: Report, sample: Sample) -> Html:
    assert sample.maps is not None
    colors = report.package.colors if report.package is not None else ()
    reference, package = sample.maps
    pictures = (
        ("image", _photo(sample)),
        ("PyTorch", _image(map_uri(reference, colors), f"PyTorch's class map of {sample.image}")),
        ("package", _image(map_uri(package, colors), f"package's class map of {sample.image}")),
        (
            "difference",
            _image(
                difference_uri(sample.pixels, sample.maps), f"where they differ: {sample.image}"
            ),
        ),
    )
    return element(
        "article",
        _header(sample.image, f"{percent(sample.agrees)} of the pixels agree"),
        element(
            "div",
            *(element("figure", image, element("figcaption", name)) for name, image in pictures),
            class_="maps",
        ),
        _legend(report, classes_seen(sample), colors),
        class_="card",
    )


def _header(name: str, badge: str) -> Html:
    return element(
        "header", element("span", name, title=name), element("span", badge, class_="badge")
    )


def _photo(sample: Sample) -> Html:
    return _image(photo_uri(sample.pixels), sample.image)


def _image(uri: str, text: str) -> Html:
    return element("img", src=uri, alt=text)


def _ranking(report: Report, title: str, ranking: Ranking) -> Html:
    rows = []
    for index, share in ranking:
        name = report.label(index)
        bar = element("i", style=f"width: {100 * min(1.0, max(0.0, share)):.1f}%")
        rows.append(
            element(
                "div",
                element("span", name, title=name),
                element("span", probability(share)),
                bar,
                class_="rank",
            )
        )
    return element("div", element("h4", title), *rows, class_=title.lower())


def _legend(report: Report, classes: list[int], colors: tuple[str, ...]) -> Html:
    entries = []
    for index in classes[:_LEGEND]:
        color = colors[index] if 0 <= index < len(colors) else "#808080"
        swatch = element("i", class_="swatch", style=f"background: {color}")
        entries.append(element("span", swatch, report.label(index)))
    more = len(classes) - _LEGEND
    if more > 0:
        entries.append(element("span", f"and {more} more"))
    return element("div", *entries, class_="legend")
