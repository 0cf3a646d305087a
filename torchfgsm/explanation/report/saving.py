"""Writes a report to a file, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from torchfgsm.explanation.result import Explanation
from torchfgsm.system import whole_file

_RENDERERS: Mapping[str, Callable[[Explanation], str]] = MappingProxyType(
    {
        ".html": lambda explanation: explanation.to_html(),
        ".md": lambda explanation: explanation.to_markdown(),
        ".json": lambda explanation: json.dumps(explanation.to_dict(), indent=2) + "\n",
        ".txt": lambda explanation: explanation.to_text() + "\n",
    }
)


def save(explanation: Explanation, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Writes the report in the format of the file's suffix.

    Raises:
        ValueError: As `refuse_target`.
        ImportError: Jinja2 or matplotlib is missing, for .html.
        OSError: The system refuses.
    """
    target = Path(path)
    refuse_target(target, tuple(_RENDERERS), overwrite=overwrite)
    write(target, _RENDERERS[target.suffix](explanation))


def refuse_target(
    path: Path, suffixes: Sequence[str], *, overwrite: bool, sources: Sequence[Path] = ()
) -> None:
    """Refuses a file that cannot be or shall not be written.

    Args:
        path: The file to write.
        suffixes: Those that it may have.
        overwrite: Whether it may replace a file.
        sources: Files that it must not replace in any case.

    Raises:
        ValueError: It is refused; the message says what was expected.
    """
    if path.suffix not in suffixes:
        expected = " or ".join(suffixes)
        raise ValueError(f"{path}: expected an output file with the suffix {expected}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: expected an existing folder, found no {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path}: expected a file for the output, found a folder")
    if path.exists() and any(s.exists() and path.samefile(s) for s in sources):
        raise ValueError(f"{path}: expected another file for the output than the input")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: is there already; --force (overwrite=True) replaces it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: the folder {path.parent} is not writable")


def write(path: Path, text: str) -> None:
    """Writes a text in one step: whatever breaks it off leaves the folder as it was.

    Raises:
        OSError: The system refuses.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        whole_file.write(path, content)
    except OSError as error:
        raise OSError(f"{path}: could not be written: {error.strerror or error}") from error
