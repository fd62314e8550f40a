"""Images in, model input out; logits in, class maps and pictures out."""

from mvit_coreml.imaging.fitting import FittedImage, fit_image, unfit_map
from mvit_coreml.imaging.geometry import Box, Fit, Placement
from mvit_coreml.imaging.loading import load_image
from mvit_coreml.imaging.processor import ImageProcessor
from mvit_coreml.imaging.segmentation import (
    colorize,
    distinct_colors,
    overlay,
    post_process_semantic_segmentation,
    voc_colors,
)

__all__ = [
    "Box",
    "Fit",
    "FittedImage",
    "ImageProcessor",
    "Placement",
    "colorize",
    "distinct_colors",
    "fit_image",
    "load_image",
    "overlay",
    "post_process_semantic_segmentation",
    "unfit_map",
    "voc_colors",
]
