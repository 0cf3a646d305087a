"""The files that a run writes: whole or not there, and a broken-off run goes on."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchfgsm.cli.attack.growing_array import Array, GrowingArray, description, written
from torchfgsm.system.arrays import read_header

SYNC_EVERY = 1.0
"""Seconds between two states that outlast the system."""


class Output:
    """`out.npy` with `out.labels.npy` and `out.recipe.json`, written beside as `.part` files.

    Every batch is noted in `out.npy.part.rows`: a killed run goes on after it, since what a process
    has written stays with the system. After the system itself went down a run goes on from
    `out.npy.part.json`, which is replaced every second, once the rows lie on the disk. Used in a
    `with` block.

    Attributes:
        path: Where the adversarial examples go.
        labels_path: Where the labels of the attack go.
        recipe_path: Where the recipe goes.
        rows: How many rows are done.
        made: Whether an earlier run of the same has made all files, so that nothing is to do.
    """

    def __init__(self, path: Path, sources: Sequence[Path]) -> None:
        """Takes the output's path and the files that must not be overwritten.

        Raises:
            ValueError: A path that is no .npy file, a folder, or one of the sources.
        """
        if path.suffix != ".npy":
            raise ValueError(f"{path}: expected an output file with the suffix .npy")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: expected an existing folder, found no {path.parent}")
        self.path = path
        self.labels_path = path.with_suffix(".labels.npy")
        self.recipe_path = path.with_suffix(".recipe.json")
        self._part, self._labels_part = (Path(f"{p}.part") for p in (path, self.labels_path))
        self._state, self._note = Path(f"{self._part}.json"), Path(f"{self._part}.rows")
        for final in self._finals:
            if final.is_dir():
                raise ValueError(f"{final}: expected a file for the output, found a folder")
            if final.exists() and any(s.exists() and final.samefile(s) for s in sources):
                raise ValueError(f"{final}: expected another file for the output than the input")
        self.rows = 0
        self.made = False
        self._held: dict[str, Any] = {}
        self._arrays: list[GrowingArray] = []
        self._synced_at = -math.inf

    def __enter__(self) -> Output:
        array = GrowingArray(self._part)
        try:
            fcntl.flock(array.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            array.close()
            raise ValueError(f"{self._part}: another run is writing it") from None
        self._arrays.append(array)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._state.exists():
            for part in (self._part, self._labels_part, self._note):
                part.unlink(missing_ok=True)
        for array in self._arrays:
            array.close()

    def begin(self, about: Mapping[str, Any], *, force: bool) -> None:
        """Takes up an earlier run, whose rows are `rows` then, or begins anew; or finds all made.

        Args:
            about: What determines the bytes, as JSON values; another run of the same goes on.
            force: Begin anew and replace what is there.

        Raises:
            ValueError: An earlier run of something else, or output that is there already.
        """
        held = None if force else self._earlier()
        if held is not None:
            _refuse_another(self._part, held["about"], about)
            self._held, self.rows = held, max(held["rows"], self._noted())
        elif not force and self._is_made(about):
            self.made = True
            return
        there = [str(final) for final in self._finals if final.exists()]
        replace = force or self._held.get("replace", False)
        if there and not replace and not self._complete:
            raise ValueError(f"{there[0]}: is there already; --force replaces it")
        if held is None:
            for old in (self._state, self._note, self._labels_part):
                old.unlink(missing_ok=True)
            self._held = {"about": dict(about), "replace": bool(there), "rows": 0, "arrays": []}
        elif not self._complete:
            self._arrays.append(GrowingArray(self._labels_part))
            for array, held_array in zip(self._arrays, held["arrays"], strict=True):
                array.take_up(held_array)
        else:
            for part, final in self._renamed:
                if not _filled(part) and not final.exists():
                    raise ValueError(f"{part}: is gone; --force begins anew")

    def create(self, x: Array, labels: Array, count: int) -> None:
        """Makes files for `count` rows like those of a first batch, all of their room taken.

        Raises:
            OSError: The system refuses, as where the disk has no room.
        """
        self._arrays.append(GrowingArray(self._labels_part))
        self._held["arrays"] = [description(x, count), description(labels, count)]
        for array, about in zip(self._arrays, self._held["arrays"], strict=True):
            array.create(about)

    def write(self, x: Array, labels: Array) -> None:
        """Adds a batch: its adversarial examples and its labels.

        Raises:
            OSError: The system refuses; what was written before stays.
        """
        for array, batch in zip(self._arrays, (x, labels), strict=True):
            array.write(self.rows, batch)
        self.rows += len(x)
        # In place and in one piece: a process is killed before it or after it.
        mode = "r+b" if self._note.exists() else "wb"
        with written(self._note), self._note.open(mode, buffering=0) as note:
            note.write(f"{self.rows:020d} {_boot()}\n".encode())
        if self._complete or time.monotonic() - self._synced_at >= SYNC_EVERY:
            self._sync()

    def finish(self) -> None:
        """Gives the files their names, the adversarial examples last.

        Raises:
            OSError: The system refuses; the same command again finishes.
        """
        with written(self.path):
            _replace(self.recipe_path, self._held["about"])
            # A run that was broken off here has renamed some of them already.
            for part, final in self._renamed:
                if _filled(part):
                    part.replace(final)
                else:
                    part.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)

    @property
    def kept(self) -> int:
        """After how many rows the same run given again goes on."""
        return max(self._held["rows"], self._noted()) if self._state.exists() else 0

    @property
    def _finals(self) -> tuple[Path, ...]:
        return self.labels_path, self.recipe_path, self.path

    @property
    def _renamed(self) -> tuple[tuple[Path, Path], ...]:
        return (self._labels_part, self.labels_path), (self._part, self.path)

    @property
    def _complete(self) -> bool:
        arrays = self._held.get("arrays", [])
        return bool(arrays) and self.rows == arrays[0]["shape"][0]

    def _sync(self) -> None:
        """Brings all rows to the disk, then the state that tells of them."""
        try:
            for array in self._arrays:
                array.sync()
            with written(self._state):
                _replace(self._state, {**self._held, "rows": self.rows})
        except OSError:
            # Rows that were noted may be lost.
            self._note.unlink(missing_ok=True)
            self.rows = self._held["rows"]
            raise
        self._held["rows"] = self.rows
        self._synced_at = time.monotonic()

    def _earlier(self) -> dict[str, Any] | None:
        if not self._state.exists():
            return None
        try:
            held: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
            held["about"], held["arrays"], held["rows"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._state}: is damaged; --force begins anew and replaces it"
            ) from None
        return held

    def _is_made(self, about: Mapping[str, Any]) -> bool:
        """Whether a run of the same has written its files, and they hold as many rows."""
        try:
            held = json.loads(self.recipe_path.read_text(encoding="utf-8"))
            sizes = []
            for path in (self.labels_path, self.path):
                with path.open("rb") as stream:
                    sizes.append(read_header(stream, path.stat().st_size)[0][:1])
        except (OSError, ValueError):
            return False
        return bool(held == json.loads(json.dumps(about)) and sizes[0] and sizes[0] == sizes[1])

    def _noted(self) -> int:
        """How many rows were written since the system came up, 0 where that is not known."""
        try:
            rows, boot = self._note.read_text(encoding="ascii").split()
            return int(rows) if boot == _boot() else 0
        except (FileNotFoundError, ValueError):
            return 0


def _boot() -> str:
    """What names the time since the system came up, from which on writes are in its memory."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())  # unknown: no other run's notes count


def _filled(part: Path) -> bool:
    return part.exists() and part.stat().st_size > 0


def _replace(path: Path, value: Any) -> None:
    """Writes JSON into a file that is the old or the new one, whatever happens."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _refuse_another(part: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuses to go on with the rows of a run that was something else."""
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            inner = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            before = ", ".join(f"{key} {before.get(key)}" for key in inner)
            now = ", ".join(f"{key} {now.get(key)}" for key in inner)
        raise ValueError(
            f"{part}: was begun with another {name} (before {before}, now {now}): give the "
            "same to go on, or --force to begin anew"
        )
