"""The packages that come with the extras of the installation, and the line that brings them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

_EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "onnx": "convert",
        "onnx2torch": "convert",
        "onnxruntime": "convert",
        "filelock": "convert",
        "platformdirs": "convert",
        "uv": "convert",
        "sklearn": "cli",
        "jinja2": "report",
        "markupsafe": "report",
        "matplotlib": "report",
    }
)
KNOWN = tuple(_EXTRAS)
"""The modules of these packages."""


def require(purpose: str, *modules: str) -> None:
    """Refuses at once what would fail later for want of a package.

    Args:
        purpose: What needs them, for the message.
        modules: Names of modules of other packages; none of them is imported.

    Raises:
        ImportError: Naming those that are missing and the line that installs them.
    """
    lacking = [name for name in modules if not _installed(name)]
    if lacking:
        raise ImportError(
            f"{purpose} needs {' and '.join(lacking)}: {install_line(lacking[0])}", name=lacking[0]
        )


def install_line(module: str | None) -> str:
    """The line that installs a module's package; "" where none of our extras holds it."""
    extra = _EXTRAS.get((module or "").partition(".")[0])
    return f"pip install 'torchfgsm[{extra}]'" if extra else ""


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the latter: loaded without a specification
        return False
