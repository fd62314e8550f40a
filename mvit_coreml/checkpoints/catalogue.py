"""The published checkpoints that this package is known to read.

Any other checkpoint of the three families works through its configuration; the catalogue only
names what is published, for ``mvit-coreml list`` and for documentation. It needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["mobilevit", "mobilevitv2", "mobilenet_v2"]
PublishedTask = Literal["image-classification", "semantic-segmentation"]
PublishedFormat = Literal["huggingface", "timm", "cvnets"]

_METRIC_NAMES: dict[PublishedTask, str] = {
    "image-classification": "ImageNet top-1 %",
    "semantic-segmentation": "VOC mIoU %",
}
_METRIC_SOURCES: dict[Family, str] = {
    "mobilevit": "arXiv:2110.02178",
    "mobilevitv2": "arXiv:2206.02680",
    "mobilenet_v2": "TensorFlow's MobileNetV2 table",
}
# Model cards and timm's configurations; None where neither was seen to name one.
_APPLE = "Apple sample code license"
_CVNETS = "cvnets-license"
_APACHE = "apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A published accuracy.

    Attributes:
        name: what was measured, on which data.
        value: in per cent.
        source: who published it.
    """

    name: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A published checkpoint.

    Attributes:
        id: the hub id; for format ``cvnets``, which Apple publishes as files, the architecture.
        family: ``model_type`` of its configuration.
        task: what it is for.
        format: library whose conventions its weights follow.
        image_size: side of its square input, in pixels.
        parameters: number of trained parameters, ``None`` where published files differ.
        metric: its published accuracy, where one is known.
        license: its weights' licence, where known.
        in_transformers: whether transformers can express the model.
    """

    id: str
    family: Family
    task: PublishedTask
    format: PublishedFormat
    image_size: int
    parameters: int | None
    metric: Metric | None = None
    license: str | None = None
    in_transformers: bool = True


@dataclass(frozen=True, kw_only=True)
class _Table:
    family: Family
    task: PublishedTask
    format: PublishedFormat
    rows: tuple[tuple[str, int, int | None, float | None, str | None], ...]


# One table a family, task and format: id, image size, parameters, accuracy, licence.
_TABLES: tuple[_Table, ...] = (
    _Table(
        family="mobilevit",
        task="image-classification",
        format="huggingface",
        rows=(
            ("apple/mobilevit-small", 256, 5_578_632, 78.4, None),
            ("apple/mobilevit-x-small", 256, 2_317_848, 74.8, None),
            ("apple/mobilevit-xx-small", 256, 1_272_024, 69.0, _APPLE),
        ),
    ),
    _Table(
        family="mobilevit",
        task="semantic-segmentation",
        format="huggingface",
        rows=(
            ("apple/deeplabv3-mobilevit-small", 512, 6_357_941, 79.1, _APPLE),
            ("apple/deeplabv3-mobilevit-x-small", 512, 2_944_069, 77.1, _APPLE),
            ("apple/deeplabv3-mobilevit-xx-small", 512, 1_854_853, 73.6, _APPLE),
        ),
    ),
    _Table(
        family="mobilevitv2",
        task="image-classification",
        format="huggingface",
        rows=(
            ("apple/mobilevitv2-1.0-imagenet1k-256", 256, 4_901_841, 78.1, None),
            ("shehan97/mobilevitv2-1.0-imagenet1k-256", 256, 4_901_841, 78.1, None),
        ),
    ),
    _Table(
        family="mobilevitv2",
        task="semantic-segmentation",
        format="huggingface",
        rows=(
            ("apple/mobilevitv2-1.0-voc-deeplabv3", 512, 13_318_654, 78.9, None),
            ("shehan97/mobilevitv2-1.0-voc-deeplabv3", 512, 13_318_654, 78.9, None),
        ),
    ),
    _Table(
        family="mobilenet_v2",
        task="image-classification",
        format="huggingface",
        rows=(
            ("google/mobilenet_v2_1.4_224", 224, 6_110_569, 75.0, None),
            ("google/mobilenet_v2_1.0_224", 224, 3_506_153, 71.8, None),
            ("google/mobilenet_v2_0.75_160", 160, 2_637_705, None, None),
            ("google/mobilenet_v2_0.35_96", 96, 1_678_409, None, None),
        ),
    ),
    _Table(
        family="mobilenet_v2",
        task="semantic-segmentation",
        format="huggingface",
        rows=(("google/deeplabv3_mobilenet_v2_1.0_513", 513, 2_525_717, None, None),),
    ),
    _Table(
        family="mobilevit",
        task="image-classification",
        format="timm",
        rows=(
            ("timm/mobilevit_s.cvnets_in1k", 256, 5_578_632, 78.4, _CVNETS),
            ("timm/mobilevit_xs.cvnets_in1k", 256, 2_317_848, 74.8, _CVNETS),
            ("timm/mobilevit_xxs.cvnets_in1k", 256, 1_272_024, 69.0, _CVNETS),
        ),
    ),
    _Table(
        family="mobilevitv2",
        task="image-classification",
        format="timm",
        rows=(
            ("timm/mobilevitv2_050.cvnets_in1k", 256, 1_370_593, 70.2, _CVNETS),
            ("timm/mobilevitv2_075.cvnets_in1k", 256, 2_866_009, 75.6, _CVNETS),
            ("timm/mobilevitv2_100.cvnets_in1k", 256, 4_901_841, 78.1, _CVNETS),
            ("timm/mobilevitv2_125.cvnets_in1k", 256, 7_478_089, 79.6, _CVNETS),
            ("timm/mobilevitv2_150.cvnets_in1k", 256, 10_594_753, 80.4, _CVNETS),
            ("timm/mobilevitv2_175.cvnets_in1k", 256, 14_251_833, 80.8, _CVNETS),
            ("timm/mobilevitv2_200.cvnets_in1k", 256, 18_449_329, 81.2, _CVNETS),
            ("timm/mobilevitv2_150.cvnets_in22k_ft_in1k", 256, 10_594_753, 81.5, _CVNETS),
            ("timm/mobilevitv2_175.cvnets_in22k_ft_in1k", 256, 14_251_833, 81.9, _CVNETS),
            ("timm/mobilevitv2_200.cvnets_in22k_ft_in1k", 256, 18_449_329, 82.4, _CVNETS),
            ("timm/mobilevitv2_150.cvnets_in22k_ft_in1k_384", 384, 10_594_753, None, _CVNETS),
            ("timm/mobilevitv2_175.cvnets_in22k_ft_in1k_384", 384, 14_251_833, None, _CVNETS),
            ("timm/mobilevitv2_200.cvnets_in22k_ft_in1k_384", 384, 18_449_329, 83.4, _CVNETS),
        ),
    ),
    _Table(
        family="mobilenet_v2",
        task="image-classification",
        format="timm",
        rows=(
            ("timm/mobilenetv2_050.lamb_in1k", 224, 1_968_680, None, _APACHE),
            ("timm/mobilenetv2_100.ra_in1k", 224, 3_504_872, None, _APACHE),
            ("timm/mobilenetv2_110d.ra_in1k", 224, 4_516_520, None, _APACHE),
            ("timm/mobilenetv2_120d.ra_in1k", 224, 5_831_144, None, _APACHE),
            ("timm/mobilenetv2_140.ra_in1k", 224, 6_108_776, None, _APACHE),
        ),
    ),
    _Table(
        family="mobilevit",
        task="image-classification",
        format="cvnets",
        rows=(
            ("mobilevit_small", 256, 5_578_632, 78.4, None),
            ("mobilevit_x_small", 256, 2_317_848, 74.8, None),
            ("mobilevit_xx_small", 256, 1_272_024, 69.0, None),
        ),
    ),
    _Table(
        family="mobilevit",
        task="semantic-segmentation",
        format="cvnets",
        rows=(
            ("deeplabv3_mobilevit_small", 512, None, 79.1, None),
            ("deeplabv3_mobilevit_x_small", 512, None, 77.1, None),
            ("deeplabv3_mobilevit_xx_small", 512, None, 73.6, None),
        ),
    ),
    _Table(
        family="mobilevitv2",
        task="image-classification",
        format="cvnets",
        rows=(
            ("mobilevitv2_0.5", 256, 1_370_593, 70.2, None),
            ("mobilevitv2_0.75", 256, 2_866_009, 75.6, None),
            ("mobilevitv2_1.0", 256, 4_901_841, 78.1, None),
            ("mobilevitv2_1.25", 256, 7_478_089, 79.6, None),
            ("mobilevitv2_1.5", 256, 10_594_753, 80.4, None),
            ("mobilevitv2_1.75", 256, 14_251_833, 80.8, None),
            ("mobilevitv2_2.0", 256, 18_449_329, 81.2, None),
        ),
    ),
    _Table(
        family="mobilevitv2",
        task="semantic-segmentation",
        format="cvnets",
        rows=(
            ("deeplabv3_mobilevitv2_0.5", 512, 6_242_318, 75.1, None),
            ("deeplabv3_mobilevitv2_1.0", 512, 13_318_654, 78.9, None),
        ),
    ),
)


def _entries(table: _Table) -> tuple[CatalogueEntry, ...]:
    return tuple(
        CatalogueEntry(
            id=name,
            family=table.family,
            task=table.task,
            format=table.format,
            image_size=image_size,
            parameters=parameters,
            metric=None
            if accuracy is None
            else Metric(
                name=_METRIC_NAMES[table.task],
                value=accuracy,
                source=_METRIC_SOURCES[table.family],
            ),
            license=license_name,
            # Depth and head of these two are not those of any width.
            in_transformers=not name.startswith(("timm/mobilenetv2_110d", "timm/mobilenetv2_120d")),
        )
        for name, image_size, parameters, accuracy, license_name in table.rows
    )


CATALOGUE: tuple[CatalogueEntry, ...] = tuple(
    entry for table in _TABLES for entry in _entries(table)
)


def find(family: str | None = None, task: str | None = None) -> tuple[CatalogueEntry, ...]:
    """Return the entries of a family and for a task; ``None`` stands for any."""
    return tuple(
        entry
        for entry in CATALOGUE
        if family in (None, entry.family) and task in (None, entry.task)
    )
