"""The image input of a package: what of the preprocessing is baked in, and how.

Core ML hands the model ``scale * pixel + bias`` with one scale for all channels and a bias for
each, in the channel order that the input declares. A standard deviation per channel does not fit
that form; dividing the first convolution's weights by it is exact, because zero padding stays
zero under a scale (a mean moved into the first convolution's bias would be wrong at the borders).
"""

from __future__ import annotations

from dataclasses import dataclass

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.image_processor import ColorOrder, ImageProcessor

RGB3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """An image input with its baked preprocessing.

    Attributes:
        height: in pixels.
        width: in pixels.
        color_order: order of the channels that the model sees.
        scale: factor on pixel values 0 to 255.
        bias: added after scaling, in ``color_order``.
        weight_scale: factor on the first convolution's input channels, in ``color_order``;
            ``None`` where the scalar scale says it all.
    """

    height: int
    width: int
    color_order: ColorOrder
    scale: float
    bias: RGB3
    weight_scale: RGB3 | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the tensor that the model gets: (1, 3, height, width)."""
        return (1, 3, self.height, self.width)


def bake_preprocessing(
    processor: ImageProcessor, num_channels: int, size: tuple[int, int]
) -> ImageInput:
    """Turn the value part of a processor (rescale, normalise, flip) into an image input.

    Args:
        processor: the processor whose ``pixel_values`` the package must see.
        num_channels: input channels of the model.
        size: (height, width) of the input in pixels.

    Raises:
        InputError: the model does not take three channels.
    """
    if num_channels != 3:
        raise InputError(
            f"the model takes {num_channels} channels (num_channels in its configuration); "
            "an image input has three: convert a model with num_channels 3"
        )
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    bias, weight_scale = (0.0, 0.0, 0.0), None
    if processor.do_normalize:
        mean, std = processor.image_mean, processor.image_std
        if len(set(std)) == 1:
            scale /= std[0]
            bias = (-mean[0] / std[0], -mean[1] / std[0], -mean[2] / std[0])
        else:
            bias = (-mean[0], -mean[1], -mean[2])
            weight_scale = (1 / std[0], 1 / std[1], 1 / std[2])
    flip = processor.do_flip_channel_order
    return ImageInput(
        height=size[0],
        width=size[1],
        color_order=processor.color_order,
        scale=scale,
        # The processor's mean and std are in RGB order, a package's in that of its input.
        bias=bias[::-1] if flip else bias,
        weight_scale=weight_scale[::-1] if flip and weight_scale else weight_scale,
    )
