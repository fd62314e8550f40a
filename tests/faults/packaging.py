"""Faults of the image input, of what a package says of itself, and of its files."""

from __future__ import annotations

import shutil
from dataclasses import replace

from faults.editor import MODEL
from faults.planting import TRAINED, altered, damaged, fault, sound_package
from foreign import WEIGHTS

_PREVIEW = "com.apple.coreml.model.preview.params"

# --- The image input


@fault(
    "classifier", "decoded_weights", "colour order swapped in the image type", "RGB declared as BGR"
)
def _(package):
    package.spec.description.input[0].type.imageType.colorSpace = 30


@fault(TRAINED, "interface", "colour order swapped in the image type", "BGR declared as RGB")
def _(package):
    package.spec.description.input[0].type.imageType.colorSpace = 20


@fault("classifier", "decoded_weights", "scale of the input wrong", "2 times")
def _(package):
    package.change(package.ops("mul")[0], "y", lambda scale: scale * 2)


@fault("classifier", "attribute", "scale of the input slightly wrong", "255 for 256: 0.4 %")
def _(package):
    package.change(package.ops("mul")[0], "y", lambda scale: scale * 255 / 256)


@fault("classifier", "decoded_weights", "scale of the input missing", "1 operation")
def _(package):
    package.bypass(package.ops("mul")[0])


@fault("classifier", "decoded_weights", "bias of the input dropped", "1 operation")
def _(package):
    package.bypass(package.ops("add")[0])


@fault(
    "normalizing classifier",
    "decoded_weights",
    "bias of the input in the wrong order",
    "RGB for BGR",
)
def _(package):
    package.change(package.ops("add")[0], "y", lambda bias: bias[:, ::-1])


@altered("normalizing classifier", "decoded_weights", "mean and std swapped", "at conversion")
def _(checkpoint):
    processor = checkpoint.image_processor
    swapped = processor.replace(image_mean=processor.image_std, image_std=processor.image_mean)
    return replace(checkpoint, image_processor=swapped)


@fault("classifier", "error", "height of the image input wrong", "1 pixel")
def _(package):
    package.spec.description.input[0].type.imageType.height += 1


# --- Labels


def _texts(package):
    return [item.immediateValue.tensor.strings.values for item in package.labels()]


@fault("classifier", "label", "labels rotated", "by one class")
def _(package):
    texts = _texts(package)
    names = [text[0] for text in texts]
    for text, name in zip(texts, names[1:] + names[:1], strict=True):
        text[0] = name


@fault("classifier", "label", "two labels swapped", "2 of 7")
@fault(TRAINED, "label", "two labels swapped", "2 of 10")
def _(package):
    texts = _texts(package)
    texts[1][0], texts[4][0] = texts[4][0], texts[1][0]


@fault("segmenter", "metadata", "labels of the preview swapped", "2 of 7", program=False)
def _(package):
    text = package.metadata[_PREVIEW].replace("tench", "?").replace('"ox"', '"tench"')
    package.metadata[_PREVIEW] = text.replace("?", "ox")


@fault("segmenter", "metadata", "a colour of the preview changed", "1 of 7", program=False)
def _(package):
    text = package.metadata[_PREVIEW]
    place = text.index("#") + 1
    digit = "0" if text[place] != "0" else "1"
    package.metadata[_PREVIEW] = text[:place] + digit + text[place + 1 :]


@fault("classifier", "error", "kinds of the label and the probabilities exchanged", "both")
def _(package):
    label, probabilities = package.spec.description.output
    label.name, probabilities.name = probabilities.name, label.name


@fault("classifier", "error", "roles of the label and the probabilities exchanged", "both")
def _(package):
    description = package.spec.description
    description.predictedFeatureName, description.predictedProbabilitiesName = (
        description.predictedProbabilitiesName,
        description.predictedFeatureName,
    )


# --- Several functions


@fault("two sizes", "interface", "the default function changed", "the second for the first")
def _(package):
    names = {function.name for function in package.spec.description.functions}
    default = package.spec.description.defaultFunctionName
    package.spec.description.defaultFunctionName = (names - {default}).pop()


# --- Metadata


@fault(
    "classifier", "error", "metadata prepares photos of another size", "60 for 64", program=False
)
def _(package):
    package.prepare(height=60, width=60)


@fault("classifier", "metadata", "photos are cut out larger", "edge 68 for 96", program=False)
def _(package):
    package.prepare(resize={"shortest_edge": 68})


@fault(
    "classifier", "metadata", "filter of resizing changed", "nearest for bilinear", program=False
)
def _(package):
    package.prepare(resample="nearest")


@fault("classifier", "metadata", "fit changed", "pad for crop", program=False)
def _(package):
    package.prepare(fit="pad")


@fault("classifier", "metadata", "fit changed in all its parts", "stretch for crop", program=False)
def _(package):
    package.prepare(fit="stretch", resize=None, crop=None)


@fault("classifier", "metadata", "metadata states another mean", "0.485 for 0.5", program=False)
def _(package):
    package.prepare(mean=[0.485, 0.5, 0.5])


@fault("classifier", "metadata", "metadata states another colour order", "BGR", program=False)
def _(package):
    package.prepare(color_order="BGR")


@fault("classifier", "metadata", "hash of another checkpoint's weights", "64 digits", program=False)
def _(package):
    package.metadata["mvit_coreml.weights_sha256"] = "6" * 64


@fault("classifier", "metadata", "precision overstated", "fp32 for fp16", program=False)
def _(package):
    package.metadata["mvit_coreml.precision"] = "fp32"


@fault("classifier", "interface", "deployment target overstated", "specification 7 for 8")
def _(package):
    package.spec.specificationVersion = 7


# --- Files


@damaged("classifier", "weight.bin truncated", "its last 64 bytes")
def _(path):
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[:-64])


@damaged("classifier", "weight.bin missing", "the file")
def _(path):
    (path / WEIGHTS).unlink()


@damaged("classifier", "weight.bin of another architecture", "the file")
def _(path):
    shutil.copy(sound_package("transformer") / WEIGHTS, path / WEIGHTS)


@damaged("classifier", "model.mlmodel truncated", "its last 100 bytes")
def _(path):
    content = (path / MODEL).read_bytes()
    (path / MODEL).write_bytes(content[:-100])
