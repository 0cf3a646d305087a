"""HDF5 files from elsewhere: their configuration, and no data from outside of them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import Any

from .archives import refuse_archive, refuse_growth

SUFFIXES = (".h5", ".hdf5")


def read_config(path: str) -> Any:
    """Returns the configuration of the Keras model in an .h5 file, None where it has none.

    Raises:
        ValueError: it is no HDF5 file, or its configuration is no JSON.
    """
    import h5py  # type: ignore[import-not-found,unused-ignore]

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    return None if config is None else json.loads(config)


def refuse_outside(path: str) -> None:
    """Refuses an .h5 or .keras file that takes data from other files, or is far smaller than they.

    Raises:
        ValueError: naming the group or the dataset; or the file cannot be read.
    """
    if path.endswith(SUFFIXES):
        _refuse_outside(path, os.path.getsize(path))
        return
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        refuse_archive(archive, os.path.getsize(path))
        for member in archive.infolist():
            if member.filename.endswith(SUFFIXES):
                _refuse_outside(io.BytesIO(archive.read(member)), member.file_size)


def _refuse_outside(file: Any, size: int) -> None:
    import h5py

    with h5py.File(file, "r") as opened:
        declared, groups, seen = 0, [opened], set()
        while groups:
            group = groups.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:  # hard links may form a ring
                continue
            seen.add(address)
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"expected data of its own, {where!r} is a link elsewhere")
                item = group[name]
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        raise ValueError(f"expected data of its own, {where!r} lies in other files")
                    declared += item.nbytes
        refuse_growth(declared, size)
