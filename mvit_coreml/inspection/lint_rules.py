"""The rules of the device lint: what each looks for, what it is said to cost, and who says so.

None of it was measured here. What the sources say was observed on some chips and systems and may
not hold on others.
"""

from __future__ import annotations

from dataclasses import dataclass

_ARTICLE = "https://machinelearning.apple.com/research/neural-engine-transformers"
_RULES = "Neural Engine rules of https://github.com/apple/coreai-models"
_UNSUPPORTED = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md"
_PALETTES = "https://apple.github.io/coremltools/docs-guides/source/opt-palettization-perf.html"


def _issue(*numbers: int) -> str:
    return ", ".join(f"https://github.com/apple/coremltools/issues/{n}" for n in numbers)


@dataclass(frozen=True, kw_only=True)
class LintRule:
    """One rule.

    Attributes:
        name: short, for tables and JSON.
        looks_for: what it finds.
        costs: what that is said to cost.
        way_out: what to do about it, where something can be done.
        source: who says it.
    """

    name: str
    looks_for: str
    costs: str
    way_out: str
    source: str


RULES = {
    rule.name: rule
    for rule in (
        LintRule(
            name="last-axis-padding",
            looks_for="large values whose last axis is no multiple of 64 bytes",
            costs="each row is padded to 64 bytes on the Neural Engine: more memory and traffic",
            way_out="put the longest axis last, 32 fp16 elements or more",
            source=_ARTICLE,
        ),
        LintRule(
            name="singleton-last-axis",
            looks_for="values of several rows with a last axis of 1",
            costs="each element takes 64 bytes on the Neural Engine: 32 times fp16's own",
            way_out="keep the last axis long: (B, C, 1, S)",
            source=_ARTICLE,
        ),
        LintRule(
            name="rank",
            looks_for="values of rank 5 or more",
            costs="ranks above 4 may leave the Neural Engine; Core ML refuses those above 5",
            way_out="merge axes by a reshape, or normalise over several axes at once",
            source=f"{_ARTICLE}; {_RULES}",
        ),
        LintRule(
            name="gather",
            looks_for="gather and scatter operations",
            costs="they leave the Neural Engine for the CPU or GPU, and values move there and back",
            way_out="slice, split, pixel_shuffle or a constant matrix product",
            source=_UNSUPPORTED,
        ),
        LintRule(
            name="fp32",
            looks_for="operations in fp32",
            costs="the Neural Engine computes in fp16 only: they run elsewhere",
            way_out="--precision fp16; --precision mixed keeps only those in fp32 that need it",
            source=_RULES,
        ),
        LintRule(
            name="dilated-conv",
            looks_for="convolutions with dilations above 1",
            costs="off the Neural Engine, or slow on it",
            way_out="--output-stride 32 or 16 has fewer of them, where the checkpoint allows it",
            source=_UNSUPPORTED,
        ),
        LintRule(
            name="palettized-stride",
            looks_for="palettized convolutions with a stride above 2",
            costs="strides that are not made of 2 and 3, or large ones on compressed weights, are "
            "reported slow",
            way_out="leave that weight uncompressed in the plan",
            source=_RULES,
        ),
        LintRule(
            name="upsampling",
            looks_for="enlarging by more than 2",
            costs="may leave the Neural Engine",
            way_out="--map-size logits leaves it to the app",
            source="https://github.com/hollance/neural-engine",
        ),
        LintRule(
            name="spatial-softmax",
            looks_for="softmax on another axis than the channels",
            costs="limits how the Neural Engine splits the operation",
            way_out="keys along axis 1: (B, keys, 1, queries)",
            source=_RULES,
        ),
        LintRule(
            name="integer-output",
            looks_for="outputs of whole numbers",
            costs="int32 is not for the Neural Engine: argmax and casts end on the CPU, and a map "
            "takes 4 bytes a pixel",
            way_out="--map-type image or int8, or logits and an argmax in the app",
            source=_issue(906, 1298),
        ),
        LintRule(
            name="grouped-tables",
            looks_for="palettes with several tables a weight",
            costs="more tables run slower; groups of 8 or 16 channels are said to be still faster "
            "than none",
            way_out="groups of 16 channels, or one table a weight with more bits",
            source=_PALETTES,
        ),
        LintRule(
            name="load-time-decompression",
            looks_for="weights that are stored compressed",
            costs="decompressed when the model loads unless the processor takes them as they are: "
            "then a longer load and no less memory",
            way_out="look at load time and memory on the device, against --bits none",
            source=f"{_PALETTES}; https://github.com/apple/ml-stable-diffusion/issues/292",
        ),
        LintRule(
            name="asymmetric-padding",
            looks_for="strided convolutions padded more on one side (pad_type custom)",
            costs="a wrong last output pixel was reported once, cause unclear",
            way_out="compare with the CPU on the device; pad_type same where it is equal",
            source=_issue(2515),
        ),
        LintRule(
            name="int16",
            looks_for="values of int16 and uint16",
            costs="an underflow was reported; casts that nothing needs",
            way_out="leave out coremltools' pass add_int16_cast",
            source=_issue(2626),
        ),
        LintRule(
            name="flexible-input",
            looks_for="inputs of several sizes",
            costs="other sizes than the default one were reported ten times slower, off the Neural "
            "Engine",
            way_out="a function for each size: convert --image-size several times",
            source=_issue(2370, 1909),
        ),
    )
}
