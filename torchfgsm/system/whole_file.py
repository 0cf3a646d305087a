"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

# What file systems say that have no files without a name.
_ONLY_NAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


def write(path: Path, content: bytes) -> None:
    """Writes a file in one step, readable by all: whatever breaks it off leaves the old one.

    Until it is complete and on the disk it has no name, so that nothing is left of it even where
    this process is killed. File systems without such files hold it under a hidden name meanwhile.

    Raises:
        OSError: The system refuses.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        handle = _opened(path.parent, part)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, 0o644)
            os.fsync(handle)
            if not part.exists():
                # With a folder given, although the path is absolute, links are followed.
                os.link(f"/proc/self/fd/{handle}", part, src_dir_fd=handle)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _opened(folder: Path, part: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _ONLY_NAMED:
            raise
    return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
