"""The image processor of MobileViT, MobileViTV2 and MobileNetV2.

One processor covers the two classes of the Hugging Face ecosystem: their steps agree but for one,
the MobileViT processor flips RGB to BGR where the MobileNetV2 processor normalises. Here either,
both or none may be switched on, which the checkpoints of other libraries need.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing import processor_config as options
from mvit_coreml.preprocessing import resize_crop_normalize as steps
from mvit_coreml.preprocessing.geometry import Fit, Placement, Size, place
from mvit_coreml.preprocessing.image_arrays import (
    Array,
    Batch,
    DataFormat,
    ImageLike,
    Images,
    ReturnTensors,
    image_array,
    to_batch,
    to_list,
    warn_if_already_rescaled,
)
from mvit_coreml.preprocessing.segmentation_maps import (
    map_array,
    post_process_semantic_segmentation,
    reduce_labels,
    resize_map,
)

ColorOrder = Literal["RGB", "BGR"]


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """Turns images into a model's input, and its output into class maps.

    The steps, each switched by its ``do_…`` option, run in this order: convert to RGB, resize,
    centre-crop, rescale, normalise, flip the channels. Pixels are bit-identical to transformers'
    Pillow processors (``MobileViTImageProcessorPil``, ``MobileNetV2ImageProcessorPil``), except
    that transparency is dropped where transformers composites on white, and 16-bit images are
    scaled where it clips them.

    Every option may be given to the constructor and, as a keyword, to a single call, where
    ``None`` stands for the processor's own. Options are accepted in every form that a
    ``preprocessor_config.json`` has for them, and held in one.

    Attributes:
        image_processor_type: class that a saved configuration names, ``MobileViTImageProcessor``
            or ``MobileNetV2ImageProcessor``.
        size: what to resize to: the shortest edge, or (height, width), in pixels.
        crop_size: (height, width) of the centre crop, in pixels; a smaller image is centred on
            zeros.
        do_resize: whether to resize.
        resample: Pillow's filter for resizing; bilinear (2) where a file says nothing.
        do_center_crop: whether to crop.
        do_rescale: whether to multiply by ``rescale_factor``.
        rescale_factor: factor from pixel values to the model's range.
        do_normalize: whether to subtract ``image_mean`` and divide by ``image_std``.
        image_mean: mean of red, green and blue, after rescaling. Normalising comes before the flip,
            so the order is RGB whatever the model's.
        image_std: standard deviation of red, green and blue.
        do_flip_channel_order: whether the model expects BGR.
        do_reduce_labels: whether segmentation maps count from 1, 0 being a background to ignore.
        do_convert_rgb: whether to convert images of other modes to RGB. If not, they keep their
            channels, and a palette image its indices.

    Raises:
        ConfigError: an option has an impossible value.
    """

    image_processor_type: str
    size: Size
    crop_size: tuple[int, int]
    do_resize: bool = True
    resample: Image.Resampling = Image.Resampling.BILINEAR
    do_center_crop: bool = True
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    do_flip_channel_order: bool = False
    do_reduce_labels: bool = False
    do_convert_rgb: bool = True

    def __post_init__(self) -> None:
        if self.image_processor_type not in options.PROCESSOR_TYPES:
            raise options.bad_option(
                "image_processor_type",
                self.image_processor_type,
                f"{options.MOBILEVIT} or {options.MOBILENET_V2}",
            )
        for name in OPTION_NAMES:
            object.__setattr__(self, name, options.read_option(name, getattr(self, name)))

    @classmethod
    def for_mobilevit(cls, *, image_size: int = 256, **overrides: Any) -> Self:
        """Return the processor of published MobileViT and MobileViTV2 checkpoints.

        Args:
            image_size: side of the model's square input, in pixels.
            overrides: any option, and ``resize_edge``, see :meth:`for_family`; 32 pixels more than
                the input are 288 for the 256-pixel classifiers, 544 for the 512-pixel segmenters.
        """
        return cls.for_family("mobilevit", image_size=image_size, **overrides)

    @classmethod
    def for_mobilenet_v2(cls, *, image_size: int = 224, **overrides: Any) -> Self:
        """Return the processor of published MobileNetV2 checkpoints.

        Args:
            image_size: side of the model's square input, in pixels.
            overrides: any option, and ``resize_edge``, see :meth:`for_family`.
        """
        return cls.for_family("mobilenet_v2", image_size=image_size, **overrides)

    @classmethod
    def for_family(
        cls, model_type: str, *, image_size: int, resize_edge: int | None = None, **overrides: Any
    ) -> Self:
        """Return the processor of published checkpoints of one family.

        Args:
            model_type: ``mobilevit``, ``mobilevitv2`` or ``mobilenet_v2``.
            image_size: side of the model's square input, in pixels.
            resize_edge: shortest edge before the crop; 32 more than the input by default.
            overrides: any option.
        """
        processor_type = options.PROCESSOR_OF_MODEL[model_type]
        published = options.CLASS_DEFAULTS[processor_type] | {
            "image_processor_type": processor_type,
            "size": image_size + 32 if resize_edge is None else resize_edge,
            "crop_size": image_size,
        }
        return cls(**published | _without_none(overrides))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], model_type: str | None = None) -> Self:
        """Build from the content of a Hugging Face ``preprocessor_config.json``.

        Any generation of the file is read. What it leaves out gets the documented default of the
        class it names, but bilinear resampling, which the published files mean. Keys of other
        processors are ignored. As in transformers, a MobileViT file never normalises and a
        MobileNetV2 file never flips channels; one that asks for it draws a warning.

        Args:
            data: the file's content.
            model_type: ``mobilevit``, ``mobilevitv2`` or ``mobilenet_v2``, for files that do not
                name their class.

        Raises:
            ConfigError: unknown class, impossible value, or a key that looks misspelt.
        """
        return cls(**options.read_preprocessor_config(data, model_type, OPTION_NAMES))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a ``preprocessor_config.json`` that makes the same pixels.

        The class it names is the one of transformers that knows all the steps in use, so it may
        differ from :attr:`image_processor_type`. No class both normalises and flips channels; such
        a file names ``ImageProcessor``, which only :meth:`from_dict` reads.
        """
        data = dataclasses.asdict(self)
        data["image_processor_type"] = options.type_that_reads_back(data)
        data["crop_size"] = options.size_as_json(self.crop_size)
        data["size"] = options.size_as_json(self.size)
        data["resample"] = int(self.resample)
        data["image_mean"], data["image_std"] = list(self.image_mean), list(self.image_std)
        return data

    def for_input_size(self, size: tuple[int, int], trained: tuple[int, int]) -> Self:
        """Return a processor that leads to another input size with the same margins around it.

        Args:
            size: (height, width) of the wanted input, in pixels.
            trained: (height, width) that this processor leads to, in pixels.
        """
        if size == trained and size == self.crop_size:
            return self
        if isinstance(self.size, int):
            edge: Size = round(self.size * max(size[0] / trained[0], size[1] / trained[1]))
        else:
            edge = (
                round(self.size[0] * size[0] / trained[0]),
                round(self.size[1] * size[1] / trained[1]),
            )
        return self.replace(size=edge, crop_size=size, do_center_crop=True)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some options changed; ``None`` keeps an option as it is."""
        return dataclasses.replace(self, **_without_none(changes))

    @property
    def color_order(self) -> ColorOrder:
        """The order of the channels in the model's input."""
        return "BGR" if self.do_flip_channel_order else "RGB"

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of every result, or ``None`` if it depends on the image."""
        if self.do_center_crop:
            return self.crop_size
        return self.size if self.do_resize and isinstance(self.size, tuple) else None

    def place(self, image_size: tuple[int, int], fit: Fit = "crop") -> Placement:
        """Lay out an image of (height, width) on the model's input.

        Raises:
            InputError: unknown ``fit``, or one that needs a fixed input size where there is none.
        """
        return place(
            image_size,
            size=self.size if self.do_resize else None,
            crop_size=self.crop_size if self.do_center_crop else None,
            fit=fit,
        )

    def preprocess(
        self,
        images: Images,
        *,
        return_tensors: ReturnTensors = "pt",
        data_format: DataFormat = "channels_first",
        input_data_format: DataFormat | None = None,
        **overrides: Any,
    ) -> Batch:
        """Turn images into the model's ``pixel_values``.

        Args:
            images: one image or a batch: paths, Pillow images, (H, W), (H, W, C) or (C, H, W)
                arrays or tensors of uint8 or floats, or a 4-D batch. To be resized, floats must
                be whole numbers up to 255 or fractions up to 1; the latter stay fractions, so
                they want ``do_rescale=False``.
            return_tensors: ``pt`` for a torch tensor, ``np`` for an array, ``None`` for a list of
                arrays.
            data_format: layout of the result, ``channels_first`` or ``channels_last``.
            input_data_format: layout of arrays and tensors; ``None`` infers it.
            overrides: options for this call.

        Returns:
            (B, 3, H, W) float32, or (B, H, W, 3) for ``channels_last``. Images that are neither
            rescaled nor normalised keep their dtype.

        Raises:
            InputError: an image that cannot be read or used, or results of different sizes.
            ConfigError: an override with an impossible value.
        """
        if data_format not in ("channels_first", "channels_last"):
            raise InputError(
                f"data_format is {data_format!r}; it must be 'channels_first' or 'channels_last'"
            )
        call = self.replace(**overrides)
        arrays = [
            call._process(
                image_array(
                    image, convert_rgb=call.do_convert_rgb, input_data_format=input_data_format
                )
            )
            for image in to_list(images, ndim=3)
        ]
        if data_format == "channels_first":
            arrays = [np.moveaxis(array, -1, 0) for array in arrays]
        return to_batch(arrays, return_tensors)

    def preprocess_segmentation_maps(
        self,
        segmentation_maps: Images,
        *,
        return_tensors: ReturnTensors = "pt",
        **overrides: Any,
    ) -> Batch:
        """Bring segmentation maps to the size and place of their images.

        They are resized by nearest neighbour and cropped like the images. Where the crop
        overhangs, labels are 0, whether or not ``do_reduce_labels`` has freed that index.

        Args:
            segmentation_maps: one map or a batch: paths, Pillow images with one band, (H, W) arrays
                or tensors of whole numbers, or a 3-D batch.
            return_tensors: see :meth:`preprocess`.
            overrides: options for this call.

        Returns:
            (B, H, W) int64 class indices.

        Raises:
            InputError: a map that cannot be read or used, or results of different sizes.
            ConfigError: an override with an impossible value.
        """
        call = self.replace(**overrides)
        maps = [call._process_map(map_array(m)) for m in to_list(segmentation_maps, ndim=2)]
        return to_batch(maps, return_tensors)

    def __call__(
        self,
        images: Images,
        segmentation_maps: Images | None = None,
        *,
        return_tensors: ReturnTensors = "pt",
        data_format: DataFormat = "channels_first",
        input_data_format: DataFormat | None = None,
        **overrides: Any,
    ) -> dict[str, Batch]:
        """Turn images, and segmentation maps alongside, into a model's inputs.

        See :meth:`preprocess` and :meth:`preprocess_segmentation_maps` for the arguments.

        Returns:
            ``pixel_values`` and, if there were maps, ``labels``.
        """
        pixel_values = self.preprocess(
            images,
            return_tensors=return_tensors,
            data_format=data_format,
            input_data_format=input_data_format,
            **overrides,
        )
        if segmentation_maps is None:
            return {"pixel_values": pixel_values}
        labels = self.preprocess_segmentation_maps(
            segmentation_maps, return_tensors=return_tensors, **overrides
        )
        if len(labels) != len(pixel_values):
            raise InputError(
                f"there are {len(pixel_values)} images but {len(labels)} segmentation maps; "
                "pass one map an image"
            )
        return {"pixel_values": pixel_values, "labels": labels}

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Any]:
        """Turn a segmenter's logits into class maps.

        See :func:`mvit_coreml.preprocessing.segmentation_maps.post_process_semantic_segmentation`.
        """
        return post_process_semantic_segmentation(outputs, target_sizes)

    def _process(self, image: Array) -> Array:
        """Run the steps on one (H, W, C) image."""
        if self.do_rescale:
            warn_if_already_rescaled(image)
        placement = self.place((image.shape[0], image.shape[1]))
        if self.do_resize:
            image = steps.resize(image, placement.resized_size, self.resample)
        if self.do_center_crop:
            image = steps.center_crop(image, self.crop_size)
        if self.do_rescale:
            image = steps.rescale(image, self.rescale_factor)
        if self.do_normalize:
            image = steps.normalize(image, self.image_mean, self.image_std)
        return steps.flip_channel_order(image) if self.do_flip_channel_order else image

    def _process_map(self, labels: Array) -> Array:
        """Run the steps that concern an (H, W) segmentation map."""
        placement = self.place((labels.shape[0], labels.shape[1]))
        if self.do_reduce_labels:
            labels = reduce_labels(labels)
        if self.do_resize:
            labels = resize_map(labels, placement.resized_size)
        return steps.center_crop(labels, self.crop_size) if self.do_center_crop else labels


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image at the size of a model's input, before any arithmetic on its values.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        placement: where those pixels lay in the original image.
    """

    pixels: Array
    placement: Placement


def fit_image(image: ImageLike, processor: ImageProcessor, fit: Fit = "crop") -> FittedImage:
    """Bring an image to a model's input size, as 8-bit RGB.

    ``processor.preprocess(fitted.pixels, do_resize=False, do_center_crop=False)`` goes on to the
    model's ``pixel_values``; for ``crop`` they are those of ``processor.preprocess(image)``.

    Args:
        image: a path, a Pillow image, or an array or tensor of one image.
        processor: gives the sizes and the resampling filter.
        fit: ``crop``, ``stretch`` or ``pad``, see :data:`~mvit_coreml.preprocessing.geometry.Fit`.

    Raises:
        InputError: an image that cannot be read or used, or an unknown ``fit``.
    """
    pixels = steps.to_uint8(image_array(image))
    placement = processor.place((pixels.shape[0], pixels.shape[1]), fit)
    if placement.resized_size != placement.image_size:
        pixels = steps.resize(pixels, placement.resized_size, processor.resample)
    return FittedImage(steps.center_crop(pixels, placement.input_size), placement)


OPTION_NAMES = tuple(
    spec.name for spec in dataclasses.fields(ImageProcessor) if spec.name != "image_processor_type"
)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
