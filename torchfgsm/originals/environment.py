"""Environments of the originals: which packages on which Python, made on first use.

Every environment is a virtual environment in the user's cache folder, named after its requirement
file's contents and its Python version: a changed pin makes a new one. It is built in a folder aside
and renamed into place, so that a broken-off creation is never taken for a finished one. What builds
it ends with this process, however this ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchfgsm.originals import guarded, interpreters

_REQUIREMENTS = Path(__file__).parent / "requirements"
_LOG_LINES = 20


class EnvironmentUnavailable(RuntimeError):  # noqa: N818 - says what is the matter
    """The environment cannot be had on this machine; the text says how to get it."""


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        name: as given to :func:`python_for`.
        holds: what it is made for, for messages.
        pythons: versions that its packages run on, the preferred one first.
        download_mb: measured size of its wheels.
        disk_mb: measured size when installed.
        check: statements that must run in it before it counts as made.
        requirements: file of pinned packages.
    """

    name: str
    holds: str
    pythons: tuple[str, ...]
    download_mb: int
    disk_mb: int
    check: str
    requirements: Path

    @property
    def variable(self) -> str:
        """The environment variable that names an existing interpreter instead."""
        return "TORCHFGSM_PYTHON_" + self.name.upper().replace("-", "_").replace(".", "_")


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            name="tensorflow-2.15",
            holds="TensorFlow 2.15.1, NSL 1.4.0, CleverHans 4.0.0, tf2onnx 1.17.0",
            pythons=("3.11", "3.10"),
            download_mb=242,
            disk_mb=1200,
            check="import neural_structured_learning, tf2onnx",
            requirements=_REQUIREMENTS / "tensorflow-2.15.txt",
        ),
        Environment(
            name="cleverhans-3",
            holds="CleverHans 3.1.0, TensorFlow 2.15.1",
            pythons=("3.11", "3.10"),
            download_mb=227,
            disk_mb=1100,
            check="import tensorflow_addons",
            requirements=_REQUIREMENTS / "cleverhans-3.txt",
        ),
        Environment(
            name="tensorflow-2.21",
            holds="TensorFlow 2.21.0, Keras 3, tf2onnx 1.17.0",
            pythons=("3.11", "3.12", "3.13", "3.10"),
            download_mb=298,
            disk_mb=1500,
            check="import tensorflow, tf2onnx",
            requirements=_REQUIREMENTS / "tensorflow-2.21.txt",
        ),
    )
}


def python_for(name: str) -> Path:
    """Returns the interpreter of an environment, which is made first where there is none.

    Args:
        name: a key of ``ENVIRONMENTS``. The variable TORCHFGSM_PYTHON_<NAME>, such as
            TORCHFGSM_PYTHON_TENSORFLOW_2_15, names an existing interpreter instead;
            TORCHFGSM_CACHE another folder than the user's cache.

    Raises:
        ValueError: there is no environment of that name.
        EnvironmentUnavailable: there is no suitable Python, the installation failed, or the system
            refused to write.
    """
    if name not in ENVIRONMENTS:
        raise ValueError(f"expected an environment out of {', '.join(ENVIRONMENTS)}, got {name!r}")
    return ready_python(ENVIRONMENTS[name])


def ready_python(environment: Environment) -> Path:
    """Returns the interpreter of ``environment``: the one named, found or made."""
    named = os.environ.get(environment.variable)
    if named:
        if interpreters.version_of(named) is None:
            raise EnvironmentUnavailable(
                f"{environment.variable} names {named}, which does not run as Python; name the "
                f"interpreter of an environment with {environment.holds}, or unset the variable"
            )
        return Path(named)
    return existing_python(environment) or _create(environment, _cache_root())


def existing_python(environment: Environment) -> Path | None:
    """The interpreter of an environment that was made before, or None."""
    root = _cache_root()
    for version in environment.pythons:
        python = _interpreter_in(root / _folder_name(environment, version))
        if python.exists():
            return python
    return None


def _cache_root() -> Path:
    chosen = os.environ.get("TORCHFGSM_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / "environments"
    try:
        import platformdirs
    except ImportError as error:
        raise _missing(error) from error
    return Path(platformdirs.user_cache_dir("torchfgsm")) / "environments"


def _missing(error: ImportError) -> EnvironmentUnavailable:
    return EnvironmentUnavailable(
        f"creating environments needs {error.name}: pip install 'torchfgsm[convert]'"
    )


def _folder_name(environment: Environment, version: str) -> str:
    key = environment.requirements.read_bytes() + version.encode()
    return f"{environment.name}-{hashlib.sha256(key).hexdigest()[:12]}"


def _interpreter_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def _create(environment: Environment, root: Path) -> Path:
    version, python = _suitable_python(environment)
    folder = root / _folder_name(environment, version)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(environment, folder):
            if not _interpreter_in(folder).exists():
                _build_aside(environment, folder, python)
    except (OSError, NotImplementedError) as error:  # the latter: a disk without locks
        raise EnvironmentUnavailable(
            f"environment {environment.name} could not be created in {root}: {error}; "
            "TORCHFGSM_CACHE names another folder"
        ) from error
    return _interpreter_in(folder)


@contextlib.contextmanager
def _alone(environment: Environment, folder: Path) -> Iterator[None]:
    """Waits until no other process makes the same environment."""
    try:
        import filelock
    except ImportError as error:
        raise _missing(error) from error
    # The lock goes with the process that holds it, so a killed creation does not block the next.
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _say(f"waiting for another process that creates environment {environment.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _suitable_python(environment: Environment) -> tuple[str, str]:
    found = interpreters.find(environment.pythons)
    if found is None:
        versions = " or ".join(environment.pythons)
        raise EnvironmentUnavailable(
            f"environment {environment.name} ({environment.holds}) needs Python {versions} with "
            f"its venv module; there is none on PATH. Install one (on Debian and Ubuntu "
            f"python{environment.pythons[0]}-venv), or `pip install uv`, which brings its own, or "
            f"name the interpreter of a ready environment in {environment.variable}"
        )
    return found


def _build_aside(environment: Environment, folder: Path, python: str) -> None:
    """Builds the environment beside ``folder`` and renames it into place."""
    _say(
        f"creating environment {environment.name} ({environment.holds}) in {folder}, once: "
        f"about {environment.download_mb} MB to download, {environment.disk_mb} MB on disk"
    )
    start = time.monotonic()
    # What is here was left by a creation that was broken off, or lost its base interpreter.
    for left in [folder, *folder.parent.glob(f"{folder.name}.building-*")]:
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.building-", dir=folder.parent))
    try:
        _install(environment, aside, python)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _say(f"environment {environment.name} is ready after {time.monotonic() - start:.0f} s")


def _install(environment: Environment, aside: Path, python: str) -> None:
    inside = str(_interpreter_in(aside))
    pinned = ["--only-binary=:all:", "--no-deps", "-r", str(environment.requirements)]
    uv = shutil.which("uv")
    if uv:
        steps = {
            f"making it with {uv} for Python {python}": [uv, "venv", "-p", python, str(aside)],
            "installing the packages": [uv, "pip", "install", "-p", inside, *pinned],
        }
    else:
        pip = [inside, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        steps = {
            # In two steps: venv does not show what ensurepip says.
            f"making it with {python}": [python, "-I", "-m", "venv", "--without-pip", str(aside)],
            "installing pip": [inside, "-I", "-m", "ensurepip", "--default-pip"],
            "installing the packages with pip": [*pip, *pinned],
        }
    steps["trying it"] = [inside, "-I", "-c", environment.check]
    for text, command in steps.items():
        _say(text)
        _run(environment, command, aside)


def _run(environment: Environment, command: list[str], aside: Path) -> None:
    code, output = guarded.run(command, folder=aside)
    if code != 0:
        tail = "\n".join(output.splitlines()[-_LOG_LINES:])
        raise EnvironmentUnavailable(
            f"environment {environment.name} could not be created: `{' '.join(command)}` ended "
            f"with {guarded.ending(code)}. {environment.variable} can name the interpreter "
            f"of a ready one instead. Last lines of the output:\n{tail}"
        )


def _say(text: str) -> None:
    print(f"torchfgsm: {text}", file=sys.stderr, flush=True)
