"""The worker script of conversions: the handlers of ``tensorflow_side``, in their own process."""

from __future__ import annotations

import os
import sys

# The worker is loaded by its path alone; last, so that nothing of TensorFlow's is shadowed.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from tensorflow_side.handlers import HANDLERS  # type: ignore[import-not-found]

__all__ = ["HANDLERS"]
