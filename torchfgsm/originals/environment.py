"""Environments of the originals: which packages on which Python, made by uv on first use.

Every environment is a virtual environment in the user's cache folder, named after the contents of
its requirement files: a changed pin makes a new one. It is built in a folder aside and renamed into
place, so that a broken-off creation is never taken for a finished one. What builds it ends with
this process, however this ends.
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

from torchfgsm.originals import guarded, installer

_REQUIREMENTS = Path(__file__).parent / "requirements"
_LOG_LINES = 20
_PATIENCE = 30.0  # seconds; a Python on a cold network disk starts slowly


class EnvironmentUnavailable(RuntimeError):  # noqa: N818 - says what is the matter
    """The environment cannot be had on this machine; the text says how to get it."""


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        name: of its folder and its variable.
        holds: what it is made for, for messages.
        pythons: the oldest and the newest version that its packages run on.
        download_mb: measured size of its wheels.
        disk_mb: measured size when installed.
        check: statements that must run in it before it counts as made.
        requirements: file of pinned packages.
        apart: requirements of packages that share a name with others, which go into a folder of
            their own; the folder is named as the file.
    """

    name: str
    holds: str
    pythons: tuple[str, str]
    download_mb: int
    disk_mb: int
    check: str
    requirements: Path
    apart: tuple[Path, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that names an existing interpreter instead."""
        return "TORCHFGSM_PYTHON_" + self.name.upper().replace("-", "_").replace(".", "_")

    @property
    def folder_name(self) -> str:
        """The name of its folder, which its packages have a part in."""
        key = b"".join(file.read_bytes() for file in (self.requirements, *self.apart))
        return f"{self.name}-{hashlib.sha256(key).hexdigest()[:12]}"


_TODAY = Environment(
    name="tensorflow-2.21",
    holds="TensorFlow 2.21.0, NSL 1.4.0, CleverHans 4.0.0 and 3.1.0, tf2onnx 1.17.0",
    pythons=("3.10", "3.13"),
    download_mb=300,
    disk_mb=1400,
    check="import tensorflow, tf_keras, tf2onnx",
    requirements=_REQUIREMENTS / "tensorflow-2.21.txt",
    apart=(_REQUIREMENTS / "cleverhans-3.txt",),
)
_OLD = Environment(
    name="tensorflow-2.15",
    holds="TensorFlow 2.15.1, NSL 1.4.0, CleverHans 4.0.0 and 3.1.0",
    pythons=("3.10", "3.11"),
    download_mb=230,
    disk_mb=1200,
    check="import neural_structured_learning",
    requirements=_REQUIREMENTS / "tensorflow-2.15.txt",
    apart=(_REQUIREMENTS / "cleverhans-3.txt",),
)
KERAS_2 = "keras-2"
KERAS_3 = "keras-3"
WITNESS = "tensorflow-2.15"
"""A second TensorFlow for the originals, the newest that they were written for."""
# What a worker runs in -> the environment. In all but KERAS_3, Keras is Keras 2.
RUNTIMES = {KERAS_2: _TODAY, KERAS_3: _TODAY, WITNESS: _OLD}
ENVIRONMENTS = {environment.name: environment for environment in (_TODAY, _OLD)}


def python_for(runtime: str) -> Path:
    """Returns the interpreter of a runtime's environment, which is made first where there is none.

    Args:
        runtime: a key of ``RUNTIMES``. The variable TORCHFGSM_PYTHON_<ENVIRONMENT>, such as
            TORCHFGSM_PYTHON_TENSORFLOW_2_21, names an existing interpreter instead;
            TORCHFGSM_CACHE another folder than the user's cache.

    Raises:
        ValueError: there is no runtime of that name.
        EnvironmentUnavailable: there is no suitable Python, the installation failed, or the system
            refused to write.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"expected a runtime out of {', '.join(RUNTIMES)}, got {runtime!r}")
    return ready_python(RUNTIMES[runtime])


def ready_python(environment: Environment) -> Path:
    """Returns the interpreter of ``environment``: the one named, found or made."""
    named = os.environ.get(environment.variable)
    if named:
        if not _runs(named):
            raise EnvironmentUnavailable(
                f"{environment.variable} names {named}, which does not run as Python; name the "
                f"interpreter of an environment with {environment.holds}, or unset the variable"
            )
        return Path(named)
    return existing_python(environment) or _create(environment, _cache_root())


def _runs(python: str) -> bool:
    try:
        return guarded.run([python, "-I", "-c", ""], seconds=_PATIENCE)[0] == 0
    except OSError:
        return False


def existing_python(environment: Environment) -> Path | None:
    """The interpreter of an environment that was made before, or None."""
    python = _interpreter_in(_cache_root() / environment.folder_name)
    return python if python.exists() else None


def _cache_root() -> Path:
    chosen = os.environ.get("TORCHFGSM_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / "environments"
    try:
        import platformdirs
    except ImportError as error:
        raise _missing(error.name) from error
    return Path(platformdirs.user_cache_dir("torchfgsm")) / "environments"


def _missing(package: str | None) -> EnvironmentUnavailable:
    return EnvironmentUnavailable(
        f"creating environments needs {package}: pip install 'torchfgsm[convert]'"
    )


def _interpreter_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def _create(environment: Environment, root: Path) -> Path:
    folder = root / environment.folder_name
    program = installer.program()
    if program is None:
        raise _missing("uv")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(environment, folder):
            if not _interpreter_in(folder).exists():
                _build_aside(environment, folder, program)
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
        raise _missing(error.name) from error
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


def _build_aside(environment: Environment, folder: Path, program: str) -> None:
    """Builds the environment beside ``folder`` and renames it into place."""
    _say(
        f"creating environment {environment.name} ({environment.holds}) in {folder}, once: "
        f"about {environment.download_mb} MB to download, {environment.disk_mb} MB on disk, "
        "15 s with a fast network"
    )
    start = time.monotonic()
    # What is here was left by a creation that was broken off, or lost its base interpreter.
    for left in [folder, *folder.parent.glob(f"{folder.name}.building-*")]:
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.building-", dir=folder.parent))
    try:
        _install(environment, aside, program)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _say(f"environment {environment.name} is ready after {time.monotonic() - start:.0f} s")


def _install(environment: Environment, aside: Path, program: str) -> None:
    inside, variables = str(_interpreter_in(aside)), installer.variables()
    oldest, newest = environment.pythons
    wanted = installer.python(oldest, newest)
    pip = [program, "pip", "install", "--python", inside, "--only-binary=:all:", "--no-deps"]
    making = f"making it with Python {oldest} to {newest}"
    steps = {
        making: [program, "venv", "--allow-existing", "--python", wanted, str(aside)],
        "installing the packages": [*pip, "-r", str(environment.requirements)],
    }
    for file in environment.apart:
        folder = str(aside / file.stem)
        steps[f"installing {file.stem}"] = [*pip, "--target", folder, "-r", str(file)]
    steps["trying it"] = [inside, "-I", "-c", environment.check]
    for text, command in steps.items():
        _say(text)
        code, output = guarded.run(command, folder=aside, env=variables)
        if code == 0:
            continue
        needs = f"It needs Python {oldest} to {newest}: install one, such as python{newest}. "
        tail = "\n".join(output.splitlines()[-_LOG_LINES:])
        raise EnvironmentUnavailable(
            f"environment {environment.name} ({environment.holds}) could not be created: "
            f"`{' '.join(command)}` ended with {guarded.ending(code)}. "
            f"{needs if text == making else ''}{environment.variable} can name the interpreter "
            f"of a ready one instead. Last lines of the output:\n{tail}"
        )


def _say(text: str) -> None:
    print(f"torchfgsm: {text}", file=sys.stderr, flush=True)
