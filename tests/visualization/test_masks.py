import io

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.visualization.masks import paletted_mask
from mvit_coreml.visualization.segmentation_maps import voc_colors


def test_a_saved_mask_reads_back_as_indices_and_as_colours():
    classes = np.array([[0, 1, 15], [20, -1, -7]])
    buffer = io.BytesIO()
    paletted_mask(classes, voc_colors(21)).save(buffer, "PNG")
    read = Image.open(buffer)
    assert read.mode == "P"
    assert np.asarray(read).tolist() == [[0, 1, 15], [20, 255, 255]]
    # VOC's own colours of aeroplane, person and border.
    rgb = read.convert("RGB")
    assert rgb.getpixel((1, 0)) == (128, 0, 0)
    assert rgb.getpixel((2, 0)) == (192, 128, 128)
    assert rgb.getpixel((1, 1)) == (224, 224, 192)


def test_more_classes_than_a_palette_holds_are_refused():
    with pytest.raises(InputError, match="up to 255 classes, not 256"):
        paletted_mask(np.zeros((2, 2), int), np.zeros((256, 3), np.uint8))
