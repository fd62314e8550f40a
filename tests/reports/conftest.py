"""Reports of small packages, validated with images; and one that is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from packages import converted, image, small_checkpoint

from mvit_coreml.compression.promise import Promise
from mvit_coreml.evaluation.accuracy import Accuracy, Agreement, Evaluation, Share
from mvit_coreml.evaluation.agreement import AgreementEstimate
from mvit_coreml.evaluation.metrics import Closeness, ConfusionMatrix
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.reports.report import Report, build_report
from mvit_coreml.validation.gates import Gate
from mvit_coreml.validation.operation_precision import LayerError
from mvit_coreml.validation.pytorch_comparison import (
    ImageResult,
    ParityReport,
    validate_target,
)
from mvit_coreml.validation.report_samples import Recording, Sample
from mvit_coreml.validation.structure_comparison import Difference

HOSTILE = "<script>alert(1)</script>\"'&|`*_[x](y)\n$\\frac$"


def _validated(task: str, **options: Any) -> Report:
    package, _ = converted("mobilenet_v2", task, **options)
    checkpoint = small_checkpoint("mobilenet_v2", task)
    predictor = Predictor(package.path, engine="portable")
    target = PackageTarget(predictor, num_labels=7)
    fit = target.preparation.fit
    parity = validate_target(
        target,
        ReferenceTarget(checkpoint, target.roles, fit=fit),
        [image((48, 80), seed) for seed in range(6)],
        synthetic=False,
        differences=(),
        samples=4,
    )
    return build_report(
        package=package.path, parity=parity, checkpoint=checkpoint, command="mvit-coreml validate"
    )


@pytest.fixture(scope="session")
def classified() -> Report:
    """Report of a classifier with 6-bit palettes."""
    return _validated("image-classification", bits=6)


@pytest.fixture(scope="session")
def segmented() -> Report:
    """Report of a segmenter."""
    return _validated("semantic-segmentation")


@pytest.fixture
def parity() -> ParityReport:
    """Report of a validation with values that are easy to recognise; every gate but one holds."""
    close = Closeness(
        snr=23.45,
        variation_snr=21.76,
        psnr=34.56,
        max_error=0.789,
        max_reference=9.87,
        cosine=0.998877,
    )
    sample = Sample(
        image="cat.jpg",
        agrees=0.0,
        snr=12.34,
        pixels=np.full((20, 30, 3), 128, np.uint8),
        reference=((1, 0.625), (0, 0.25), (2, 0.125)),
        package=((0, 0.5), (1, 0.375), (2, 0.0625)),
    )
    return ParityReport(
        package="Model.mlpackage",
        source="owner/model",
        function="main",
        engine="portable",
        images=8,
        synthetic=False,
        precision="fp16",
        bits=6,
        scores=close,
        outputs={"probabilities": replace(close, snr=26.78)},
        agreement={"top1": 0.875, "top5": 0.9512, "kl": 0.01234},
        estimate=AgreementEstimate(
            images=8, agreement=0.875, low=0.529, high=0.978, expected=0.86, lower_bound=0.62
        ),
        promise=Promise(min_agreement=0.5),
        worst=(ImageResult(image="cat.jpg", snr=12.34, agrees=0.0),),
        differences=(Difference(aspect="weight", place="main/conv_1", detail="is off"),),
        layers=(
            LayerError(operation="image_1", op_type="mul", snr=300.0, drop=0.0),
            LayerError(operation="conv_1", op_type="conv", snr=44.4, drop=255.6),
            LayerError(operation="conv_2", op_type="conv", snr=21.3, drop=23.1),
            LayerError(operation="relu_2", op_type="relu", snr=22.5, drop=-1.2),
        ),
        gates=(
            Gate(name="decoded_weights", value=51.23, bound=35.0, verdict="kept"),
            Gate(name="top1_agreement", value=0.875, bound=0.5, verdict="kept"),
            Gate(name="structure", value=1, bound=0, verdict="broken", advice="convert it again"),
        ),
        notes=("a note",),
        recording=Recording(samples=(sample,), score_pairs=((1.0, 1.5), (-2.0, -2.5), (3.0, 3.0))),
    )


@pytest.fixture
def evaluation() -> Evaluation:
    """Of a package and its checkpoint on ten images of three classes."""
    counts = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 2]])
    confusion = ConfusionMatrix(3)
    confusion.counts[:] = counts
    accuracies = tuple(
        Accuracy(
            target=name,
            figures={"top1": Share(value=value, low=value - 0.2, high=value + 0.1)},
            confusion=confusion,
            predictions=np.zeros(10, np.int64),
        )
        for name, value in (("Model.mlpackage", 0.7), ("owner/model", 0.8))
    )
    return Evaluation(
        dataset="pets",
        images=10,
        accuracies=accuracies,
        agreement=Agreement(
            share=Share(value=0.9, low=0.6, high=0.98),
            worst_image=None,
            both_right=6,
            only_first=1,
            only_second=2,
            both_wrong=1,
        ),
    )


@pytest.fixture
def hostile(parity, evaluation, classified) -> Report:
    """A report all of whose texts hold markup."""
    assert parity.recording is not None
    (sample,) = parity.recording.samples
    assert classified.package is not None
    function = replace(classified.package.function, labels=(HOSTILE,) * 3)
    hurt = replace(
        parity,
        package=HOSTILE,
        source=HOSTILE,
        outputs={HOSTILE: parity.scores},
        worst=(replace(parity.worst[0], image=HOSTILE),),
        differences=(Difference(aspect="label", place=HOSTILE, detail=HOSTILE),),
        layers=tuple(
            replace(layer, operation=HOSTILE + str(i)) for i, layer in enumerate(parity.layers)
        ),
        notes=(HOSTILE,),
        recording=replace(parity.recording, samples=(replace(sample, image=HOSTILE),)),
    )
    return Report(
        title=HOSTILE,
        parity=hurt,
        package=replace(classified.package, name=HOSTILE, function=function),
        evaluation=replace(evaluation, dataset=HOSTILE),
        labels=(HOSTILE,) * 3,
        notes=(HOSTILE + " again",),
        reproduction=replace(
            classified.reproduction, command=HOSTILE, checkpoint=HOSTILE, made_with={HOSTILE: "1"}
        ),
    )
