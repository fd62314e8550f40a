"""The HTML report, parsed with the standard library."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.compression.promise import Promise
from mvit_coreml.reports.html_and_markdown import as_html
from mvit_coreml.reports.report import Report, build_report
from mvit_coreml.validation.gates import Gate
from mvit_coreml.validation.report_samples import Recording

VOID = {"meta", "img", "br", "wbr"}
HOSTILE_TEXT = "<script>alert(1)</script>\"'&|`*_[x](y)\n$\\frac$"


class Page(HTMLParser):
    """What a page holds; fails where elements are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag not in VOID:
            self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in dict.fromkeys(self.open):
            if tag in ("td", "th"):
                self.rows[-1][-1] += data
            elif tag in self.texts:
                self.texts[tag][-1] += data

    @property
    def text(self) -> str:
        (main,) = self.texts["main"]
        return main

    @property
    def headings(self) -> list[str]:
        return self.texts.get("h2", [])

    def row(self, first: str) -> list[str]:
        """The one row that starts, or goes on after its number, with a text."""
        (found,) = [row for row in self.rows if first in row[:2]]
        return found


def shown(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def page(parity) -> Page:
    return Page(
        shown(as_html(Report(title="Model.mlpackage", parity=parity, labels=("dog", "cat", "ox"))))
    )


def test_every_element_is_closed_and_nothing_is_run(classified, segmented, hostile):
    for report in (classified, segmented, hostile):
        page = Page(as_html(report))
        assert not page.tags.keys() & {"script", "link", "iframe", "object", "form"}
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_it_refers_to_nothing_outside_itself(classified, segmented):
    for report in (classified, segmented):
        source = as_html(report)
        page = Page(source)
        for _, name, value in page.attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                assert value.startswith(("data:image/", "#"))
        assert not re.search(r"url\((?!#)", source)
        assert "http://" not in source
        assert "https://" not in source
        assert "@import" not in source
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        wanted = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', source)
        assert {first or second for first, second in wanted} <= set(ids)


def test_a_policy_forbids_what_is_not_in_the_file(page):
    policy = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
    assert any("default-src 'none'" in value for value in policy)


def test_hostile_texts_are_shown_as_they_are(hostile):
    page = Page(as_html(hostile))
    assert "script" not in page.tags
    cells = [cell for row in page.rows for cell in row]
    assert HOSTILE_TEXT in cells
    assert page.texts["h1"] == [HOSTILE_TEXT]
    assert HOSTILE_TEXT in page.texts["pre"]
    assert HOSTILE_TEXT in page.texts["li"]
    assert any(text.startswith(HOSTILE_TEXT) for text in page.texts["span"])
    assert any(name == "alt" and HOSTILE_TEXT in value for _, name, value in page.attributes)


def test_the_verdict_comes_first_and_says_what_failed(page):
    failed = "parts that differ from the checkpoint"
    assert "✗ FAILED" in page.text
    assert page.text.index("FAILED") < page.text.index(failed)
    assert "Parts that differ from the checkpoint: 1, must be ≤ 0 (convert it again)." in page.text
    assert page.row(failed) == ["✗", failed, "1", "≤ 0"]
    own = "answers of PyTorch with the package's own weights"
    assert page.row(own) == ["✓", own, "51.2 dB", "≥ 35.0 dB"]
    assert page.row("same top class as PyTorch") == [
        "✓",
        "same top class as PyTorch",
        "87.5%",
        "≥ 50.0%",
    ]


@pytest.mark.parametrize(
    ("status", "looks", "mark"),
    [
        ("PASSED", "good", "✓"),
        ("UNDECIDED", "unsure", "?"),
        ("BELOW PROMISE", "unsure", "✗"),
        ("FAILED", "bad", "✗"),
    ],
)
def test_a_verdict_is_green_amber_or_red(parity, status, looks, mark):
    verdicts = {"PASSED": "kept", "UNDECIDED": "undecided"}
    gate = replace(parity.gates[1], verdict=verdicts.get(status, "broken"))
    judged = replace(
        parity, gates=(parity.gates[0], gate), binding=status != "BELOW PROMISE", differences=()
    )
    source = as_html(Report(title="a", parity=judged))
    page = Page(source)
    shown_status = {"PASSED": "✓ PASSED", "FAILED": "✗ FAILED"}.get(status, status)
    assert page.texts["title"] == [f"{status}: a"]
    assert ("div", "class", f"verdict {looks}") in page.attributes
    assert f"{shown_status}\n" in page.text
    assert page.row("same top class as PyTorch")[0] == mark
    assert f".verdict.{looks} {{" in source
    if status != "BELOW PROMISE":
        assert ("tr", "class", looks) in page.attributes


def test_the_figures_are_those_of_the_validation(page):
    expected = ["34.6 dB", "0.789", "9.87", "0.998877"]
    assert page.row("scores before softmax, sigmoid or argmax")[1:] == ["23.4 dB", *expected]
    assert page.row("probabilities")[1:] == ["26.8 dB", *expected]
    assert page.row("conv_2") == ["2", "conv_2", "conv", "21.3 dB", "23.1 dB"]
    assert page.row("conv_1") == ["1", "conv_1", "conv", "44.4 dB", "input exact"]
    assert not [row for row in page.rows if "relu_2" in row]  # nothing is lost there
    assert page.row("weight") == ["weight", "main/conv_1", "is off"]
    assert "87.5%" in page.texts["dd"]
    assert "95.1%" in page.texts["dd"]
    assert "0.0123 nats" in page.texts["dd"]


def test_real_figures_are_those_of_the_validation(classified):
    parity = classified.parity
    page = Page(shown(as_html(classified)))
    assert page.row("scores before softmax, sigmoid or argmax")[1] == f"{parity.scores.snr:.1f} dB"
    assert f"{100 * parity.agreement['top1']:.1f}%" in page.texts["dd"]
    for sample in parity.recording.samples:
        assert any(name == "alt" and value == sample.image for _, name, value in page.attributes)


def test_synthetic_pictures_show_no_classes_that_agree(parity):
    synthetic = replace(parity, synthetic=True, agreement={}, estimate=None)
    page = Page(shown(as_html(Report(title="a", parity=synthetic))))
    assert page.row("cat.jpg") == ["cat.jpg", "12.3 dB"]
    assert "same top class" not in page.texts["span"]


def test_both_answers_stand_beside_the_image(page):
    (card,) = page.texts["article"]
    assert "✗ differs" in card
    assert re.findall(r"(dog|cat|ox)([0-9.]+%)", card) == [
        ("cat", "62.5%"), ("dog", "25.0%"), ("ox", "12.5%"),
        ("dog", "50.0%"), ("cat", "37.5%"), ("ox", "6.2%"),
    ]  # fmt: skip


def test_a_segmenters_maps_have_the_packages_colours(segmented):
    page = Page(as_html(segmented))
    pictures = {
        value_alt: value_src
        for (_, _, value_src), (_, _, value_alt) in zip(
            [a for a in page.attributes if a[:2] == ("img", "src")],
            [a for a in page.attributes if a[:2] == ("img", "alt")],
            strict=True,
        )
    }
    sample = segmented.parity.recording.samples[0]
    classes = np.unique(sample.maps[1])
    palette = {tuple(bytes.fromhex(segmented.package.colors[index][1:])) for index in classes}
    found = pictures[f"package's class map of {sample.image}"]
    picture = Image.open(io.BytesIO(base64.b64decode(found.split(",")[1]))).convert("RGB")
    assert {color for _, color in picture.getcolors()} <= palette
    legends = [text for text in page.texts["span"] if text in segmented.labels]
    assert {segmented.labels[index] for index in classes} <= set(legends)


def test_each_section_is_there_with_its_data_only(parity, evaluation, classified):
    def headings(report: Report) -> list[str]:
        return Page(as_html(report)).headings

    bare = replace(parity, layers=(), recording=None, notes=(), differences=())
    assert headings(Report(title="a", parity=bare)) == ["Closeness to PyTorch"]
    assert headings(Report(title="a", parity=replace(bare, layers=parity.layers))) == [
        "Closeness to PyTorch",
        "Error by operation",
    ]
    assert headings(Report(title="a", parity=replace(bare, differences=parity.differences))) == [
        "Differences from a fresh conversion",
        "Closeness to PyTorch",
    ]
    assert headings(Report(title="a", parity=replace(bare, recording=parity.recording))) == [
        "Images",
        "Closeness to PyTorch",
    ]
    assert headings(Report(title="a", evaluation=evaluation)) == ["Accuracy on labelled images"]
    assert headings(Report(title="a", notes=("b",))) == ["Notes"]
    assert headings(Report(title="a", package=classified.package)) == [
        "Package",
        "Size",
        "Operations",
        "Cost, estimated",
    ]
    assert headings(Report(title="a", reproduction=classified.reproduction)) == ["How to reproduce"]
    assert headings(Report(title="a")) == []


def test_without_a_comparison_it_does_not_claim_one(classified):
    page = Page(as_html(replace(classified, parity=None)))
    assert "NOT COMPARED" in page.text
    assert "PASSED" not in page.text


def test_few_classes_are_shown_with_their_confusions(evaluation):
    page = Page(as_html(Report(title="a", evaluation=evaluation, labels=("dog", "cat", "ox"))))
    rows = [row for row in page.rows if row[0] == "dog" and len(row) == 4]
    assert rows == [["dog", "75", "25", ""]] * 2
    assert ["cat", "ox", "2"] in page.rows
    assert page.row("owner/model")[1] == "80.0% (60.0 to 90.0)"
    assert "MEASURED" in page.text


def test_many_classes_are_not(evaluation):
    accuracy = evaluation.accuracies[0]
    many = np.eye(30, dtype=np.int64)
    accuracy.confusion.counts = many
    page = Page(as_html(Report(title="a", evaluation=replace(evaluation, accuracies=(accuracy,)))))
    assert "details" not in page.tags


def test_the_facts_of_the_package_are_shown(classified):
    page = Page(as_html(classified))
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts["palettes"] == "6 bits"
    assert facts["target"] == "iOS 17 (specification 8)"
    assert facts["colour order"] == "RGB"
    assert facts["input"].endswith("image, 64x64 pixels")
    assert facts["photos are"].endswith("(crop)")
    assert facts["its weights, SHA-256"] == "5" * 64
    assert "mvit-coreml validate" in page.texts["pre"]


def test_twelve_images_take_little_room(segmented):
    random = np.random.default_rng(0)
    sample = segmented.parity.recording.samples[0]
    # Noise is the worst case of every encoding.
    large = replace(
        sample,
        pixels=random.integers(0, 256, (513, 513, 3), dtype=np.uint8),
        maps=tuple(random.integers(0, 7, (513, 513), dtype=np.int32) for _ in range(2)),
    )
    recording = Recording(samples=(large,) * 12)
    report = replace(segmented, parity=replace(segmented.parity, recording=recording))
    assert len(as_html(report)) < 1_500_000


def test_an_exact_package_has_a_page(parity):
    exact = tuple(replace(layer, snr=300.0, drop=0.0) for layer in parity.layers)
    report = Report(title="a", parity=replace(parity, layers=exact))
    assert "Every operation is exact." in Page(as_html(report)).text


def test_a_package_alone_has_a_page(classified):
    report = build_report(package=classified.package.inspection.path)
    assert Page(as_html(report)).texts["h1"] == [classified.package.name]


def test_features_are_not_called_scores(parity):
    features = replace(
        parity,
        outputs={"pooler_output": parity.scores},
        features=(parity.scores,),
        agreement={},
        estimate=None,
        promise=Promise(min_snr=20),
        gates=(*parity.gates[:1], Gate(name="snr", value=21.76, bound=20.0, verdict="kept")),
        recording=None,
    )
    page = Page(shown(as_html(Report(title="a", parity=features))))
    assert (
        "It keeps 21.8 dB on 8 photos; the features are off by 6.7% of their size (23.4 dB)."
        in page.text
    )
    name = "signal to noise of what differs between images"
    assert page.row(name) == ["✓", name, "21.8 dB", "≥ 20.0 dB"]
    assert page.row("pooler_output")[1] == "23.4 dB"
    assert not [row for row in page.rows if row[0].startswith("scores before")]


def test_palettes_of_several_widths_are_named_from_the_narrowest_to_the_widest(classified):
    facts = classified.package
    (group,) = [group for group in facts.inspection.weights if "palette" in group.scheme]
    mixed = tuple(replace(group, scheme=f"{bits}-bit palette", bits=bits) for bits in (8, 4, 6))
    inspection = replace(facts.inspection, weights=mixed)
    page = Page(as_html(replace(classified, package=replace(facts, inspection=inspection))))
    assert "4 to 8 bits" in page.texts["dd"]
