"""What real packages say about themselves, whole and broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from package_cache import converted_package
from packages import LABELS, SavedPackage, converted, small_checkpoint

from mvit_coreml import ConvertOptions, load_checkpoint
from mvit_coreml.demo import KINDS, demo_checkpoint
from mvit_coreml.evaluation.read_metadata import LABELS_KEY
from mvit_coreml.export.metadata import PREPROCESSING_KEY, PREVIEW_PARAMS, label_colors

TASK_KEY, OUTPUT_KEY = "mvit_coreml.task", "mvit_coreml.output"
# They change with the versions of what is installed.
VOLATILE = (
    "mvit_coreml.versions",
    "mvit_coreml.program_sha256",
    "com.github.apple.coremltools.version",
    "com.github.apple.coremltools.source",
)


def files() -> dict[str, bytes]:
    """Return the metadata of packages, and the descriptions of some as files."""
    packages = _packages()
    valid = [_valid(name, package) for name, package in packages.items()]
    content: dict[str, Any] = {
        "valid": valid,
        "broken": _broken({case["name"]: case["user_defined"] for case in valid}),
    }
    written = {"metadata.json": _json(content)}
    for name in ("segmenter", "sizes"):
        for path, data in _description(packages[name]).items():
            written[f"packages/{name}/{path}"] = data
    return written


def _packages() -> dict[str, SavedPackage]:
    found = {}
    for kind in KINDS:
        checkpoint = load_checkpoint(demo_checkpoint(kind))
        made = converted_package(checkpoint, ConvertOptions(bits=None))
        found[kind] = SavedPackage(made.path)
    found["mobilenet_v2"] = converted("mobilenet_v2")[1]
    found["sizes"] = converted("mobilenet_v2", image_sizes=((96, 128), (64, 64)), ios=18)[1]
    found["logits"] = converted("mobilenet_v2", output="logits", fit="stretch")[1]
    found["features"] = converted("mobilenet_v2", output="features", color_order="BGR")[1]
    tags = small_checkpoint("mobilenet_v2", problem_type="multi_label_classification")
    made = converted_package(tags, ConvertOptions(bits=None, output="logits"))
    found["labels"] = SavedPackage(made.path)
    found["values"] = converted("mobilenet_v2", activation="none")[1]
    found["embedding"] = converted("mobilenet_v2", output="embedding")[1]
    found["image map"] = converted("mobilenet_v2", "semantic-segmentation", map_type="image")[1]
    found["scores"] = converted("mobilenet_v2", "semantic-segmentation", output="logits")[1]
    return found


def _user_defined(package: SavedPackage) -> dict[str, str]:
    texts = package.user_defined.items()
    return {key: text for key, text in sorted(texts) if key not in VOLATILE}


def _valid(name: str, package: SavedPackage) -> dict[str, Any]:
    """Say by hand what must be read; sizes are (width, height)."""
    heads = {"activation": "softmax", "map_type": "int32"}
    expected = heads | _EXPECTED[name]
    return {"name": name, "user_defined": _user_defined(package), "expected": expected}


def _function(
    name: str,
    size: tuple[int, int],
    fit: str,
    edge: int | None,
    order: str,
    scale: float,
    bias: float,
) -> dict[str, Any]:
    return {
        "name": name,
        "width": size[0],
        "height": size[1],
        "fit": fit,
        "shortest_edge": edge,
        "resample": "bilinear",
        "color_order": order,
        "scale": scale,
        "bias": [bias] * 3,
    }


def _minus_one_to_one(
    name: str, size: tuple[int, int], fit: str, edge: int | None, order: str = "RGB"
) -> dict[str, Any]:
    return _function(name, size, fit, edge, order, 2 / 255, -1.0)


_CLASSIFICATION, _SEGMENTATION = "image-classification", "semantic-segmentation"
# A black background, then what visualization/segmentation_colors.py gives six classes.
_COLORS = label_colors(LABELS)
_UNIQUE = ["background", "tench", "crane", "maillot", "ox", "crane (5)", "maillot (6)"]
_EXPECTED: dict[str, Any] = {
    "classifier": {
        "task": _CLASSIFICATION,
        "output": "probabilities",
        "functions": [_function("main", (64, 64), "crop", 72, "BGR", 1 / 255, 0.0)],
        "labels": None,
        "colors": None,
    },
    "segmenter": {
        "task": _SEGMENTATION,
        "output": "classes",
        "functions": [_function("main", (96, 96), "pad", None, "BGR", 1 / 255, 0.0)],
        "labels": ["background", "red digit", "blue digit"],
        "colors": ["#000000", "#00FF33", "#CC00FF"],
    },
    "mobilenet_v2": {
        "task": _CLASSIFICATION,
        "output": "probabilities",
        "functions": [_minus_one_to_one("main", (64, 64), "crop", 96)],
        "labels": None,
        "colors": None,
    },
    "sizes": {
        "task": _CLASSIFICATION,
        "output": "probabilities",
        "functions": [
            _minus_one_to_one("size_64x64", (64, 64), "crop", 96),
            _minus_one_to_one("size_96x128", (128, 96), "crop", 192),
        ],
        "labels": None,
        "colors": None,
    },
    "logits": {
        "task": _CLASSIFICATION,
        "output": "logits",
        "functions": [_minus_one_to_one("main", (64, 64), "stretch", None)],
        "labels": _UNIQUE,
        "colors": None,
    },
    "features": {
        "task": _CLASSIFICATION,
        "output": "features",
        "functions": [_minus_one_to_one("main", (64, 64), "crop", 96, "BGR")],
        "labels": None,
        "colors": None,
    },
    "labels": {
        "task": _CLASSIFICATION,
        "output": "logits",
        "activation": "sigmoid",
        "functions": [_minus_one_to_one("main", (64, 64), "crop", 96)],
        "labels": _UNIQUE,
        "colors": None,
    },
    "values": {
        "task": _CLASSIFICATION,
        "output": "values",
        "activation": "none",
        "functions": [_minus_one_to_one("main", (64, 64), "crop", 96)],
        "labels": _UNIQUE,
        "colors": None,
    },
    "embedding": {
        "task": _CLASSIFICATION,
        "output": "embedding",
        "functions": [_minus_one_to_one("main", (64, 64), "crop", 96)],
        "labels": None,
        "colors": None,
    },
    "image map": {
        "task": _SEGMENTATION,
        "output": "classes",
        "map_type": "image",
        "functions": [_minus_one_to_one("main", (64, 64), "pad", None)],
        "labels": _UNIQUE,
        "colors": _COLORS,
    },
    "scores": {
        "task": _SEGMENTATION,
        "output": "logits",
        "functions": [_minus_one_to_one("main", (64, 64), "pad", None)],
        "labels": _UNIQUE,
        "colors": None,
    },
}
assert len(_UNIQUE) == len(LABELS)

Change = Callable[[dict[str, Any]], object]


def _broken(packages: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Break the metadata of real packages, one fault each."""

    def main(change: Change) -> Callable[[dict[str, str]], None]:
        def apply(texts: dict[str, str]) -> None:
            content = json.loads(texts[PREPROCESSING_KEY])
            change(content["main"])
            texts[PREPROCESSING_KEY] = json.dumps(content)

        return apply

    def preview(change: Change) -> Callable[[dict[str, str]], None]:
        def apply(texts: dict[str, str]) -> None:
            content = json.loads(texts[PREVIEW_PARAMS])
            change(content)
            texts[PREVIEW_PARAMS] = json.dumps(content)

        return apply

    def text(key: str, value: str | None) -> Callable[[dict[str, str]], None]:
        return lambda texts: (
            texts.__setitem__(key, value) if value is not None else texts.__delitem__(key)
        )

    size = "must be a whole number from 1 to 16384"
    missing = "is missing; only packages that mvit-coreml made can be used"
    prep = PREPROCESSING_KEY
    faults: list[tuple[str, Callable[[dict[str, str]], None], str]] = [
        ("classifier", text(prep, None), f"{prep}: {missing}"),
        ("classifier", text(prep, "{"), f"{prep}: is no JSON"),
        ("classifier", text(prep, "[1]"), f"{prep}: the value must be an object"),
        ("classifier", text(prep, "{}"), f"{prep}: describes no function"),
        ("classifier", text(prep, '{"main": 3}'), f"{prep}: main must be an object"),
        ("classifier", main(lambda m: m.pop("width")), f"{prep}: main.width {size}"),
        ("classifier", main(lambda m: m.update(height=0)), f"{prep}: main.height {size}"),
        ("classifier", main(lambda m: m.update(height=64.5)), f"{prep}: main.height {size}"),
        ("classifier", main(lambda m: m.update(width="64")), f"{prep}: main.width {size}"),
        ("classifier", main(lambda m: m.update(width=True)), f"{prep}: main.width {size}"),
        ("classifier", main(lambda m: m.update(width=10**30)), f"{prep}: main.width {size}"),
        (
            "classifier",
            main(lambda m: m.update(version=2)),
            f"{prep}: main.version must be 1, the only version that this app knows",
        ),
        (
            "classifier",
            main(lambda m: m.update(fit="cover")),
            f"{prep}: main.fit must be one of crop, stretch, pad",
        ),
        (
            "classifier",
            main(lambda m: m.update(resample="cubic")),
            f"{prep}: main.resample must be one of "
            "nearest, box, bilinear, hamming, bicubic, lanczos",
        ),
        (
            "classifier",
            main(lambda m: m.update(color_order="GRB")),
            f"{prep}: main.color_order must be one of RGB, BGR",
        ),
        (
            "classifier",
            main(lambda m: m.update(resize=72)),
            f"{prep}: main.resize must be an object",
        ),
        (
            "classifier",
            main(lambda m: m["resize"].update(shortest_edge=-1)),
            f"{prep}: main.resize.shortest_edge {size}",
        ),
        ("classifier", main(lambda m: m.update(resize={})), f"{prep}: main.resize.width {size}"),
        (
            "classifier",
            main(lambda m: m["crop"].update(height=32)),
            f"{prep}: main.crop.height must be 64 as that of the input",
        ),
        (
            "classifier",
            main(lambda m: m["baked"].update(bias=[0, 0])),
            f"{prep}: main.baked.bias must be 3 numbers",
        ),
        (
            "classifier",
            main(lambda m: m["baked"].update(bias=[0, "0", 0])),
            f"{prep}: main.baked.bias[1] must be a number",
        ),
        (
            "classifier",
            main(lambda m: m["baked"].pop("scale")),
            f"{prep}: main.baked.scale must be a number",
        ),
        ("classifier", text(TASK_KEY, None), f"{TASK_KEY}: {missing}"),
        (
            "classifier",
            text(TASK_KEY, "detection"),
            f"{TASK_KEY}: is 'detection'; it must be one of "
            "image-classification, semantic-segmentation, backbone",
        ),
        (
            "classifier",
            text(OUTPUT_KEY, "classes"),
            f"{OUTPUT_KEY}: is classes, which does not apply to image-classification",
        ),
        ("segmenter", text(PREVIEW_PARAMS, None), f"{PREVIEW_PARAMS}: {missing}"),
        ("segmenter", text(PREVIEW_PARAMS, "red"), f"{PREVIEW_PARAMS}: is no JSON"),
        (
            "segmenter",
            preview(lambda p: p.pop("labels")),
            f"{PREVIEW_PARAMS}: labels must be an array",
        ),
        (
            "segmenter",
            preview(lambda p: p.update(labels=[])),
            f"{PREVIEW_PARAMS}: labels must be a list of class names",
        ),
        (
            "segmenter",
            preview(lambda p: p["labels"].__setitem__(1, 5)),
            f"{PREVIEW_PARAMS}: labels[1] must be a text",
        ),
        (
            "segmenter",
            preview(lambda p: p["colors"].pop()),
            f"{PREVIEW_PARAMS}: colors must be a list of 3 colours, one for each label",
        ),
        (
            "segmenter",
            preview(lambda p: p["colors"].__setitem__(2, "#FF77")),
            f"{PREVIEW_PARAMS}: colors[2] must be a colour of the form #RRGGBB",
        ),
        (
            "labels",
            text("mvit_coreml.activation", "relu"),
            "mvit_coreml.activation: is 'relu'; it must be one of softmax, sigmoid, none",
        ),
        ("logits", text(LABELS_KEY, None), f"{LABELS_KEY}: {missing}"),
        ("scores", text(LABELS_KEY, '{"a": 1}'), f"{LABELS_KEY}: the value must be an array"),
    ]
    broken = []
    for name, change, error in faults:
        texts = dict(packages[name])
        change(texts)
        broken.append({"name": f"{name}, {error}", "user_defined": texts, "error": error})
    return broken


def _description(package: SavedPackage) -> dict[str, bytes]:
    """Return a package's files without its program, which describes it as well and is small."""
    spec = type(package.spec)()
    spec.CopyFrom(package.spec)
    spec.ClearField("mlProgram")
    for key in VOLATILE:
        spec.description.metadata.userDefined.pop(key, None)
    path = "com.apple.CoreML/model.mlmodel"
    manifest = {"itemInfoEntries": {"model": {"path": path}}, "rootModelIdentifier": "model"}
    return {
        "Manifest.json": _json(manifest),
        f"Data/{path}": spec.SerializeToString(deterministic=True),
    }


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
