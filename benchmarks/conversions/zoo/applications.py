"""keras.applications for small images and ten classes, with random weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

_SIZES = {
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "ResNet50": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "InceptionV3": 75,
    "Xception": 71,
    "VGG16": 32,
    "NASNetMobile": 32,
    "ConvNeXtTiny": 32,
}


def _application(name: str, size: int) -> Any:
    make = getattr(tf.keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), classes=10)


MODELS = {name: partial(_application, name, size) for name, size in _SIZES.items()}
