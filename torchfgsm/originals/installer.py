"""The installer uv: where it is, which Python it takes, and where it finds packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

# pip's settings for which uv has variables: whoever has a package index of their own told pip.
_SETTINGS = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
_SETTING = re.compile(r"(?P<place>[\w:]+)\.(?P<name>[\w-]+)='(?P<value>.*)'")


def program() -> str | None:
    """Returns the path of uv, None where there is none."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):  # of a package of another system, without a program
        return shutil.which("uv")


def python(oldest: str, newest: str) -> str:
    """Returns the Python to ask uv for: this one where it fits, else any that does.

    Args:
        oldest: such as "3.10".
        newest: such as "3.13", which is included.
    """
    first, last = (tuple(map(int, version.split("."))) for version in (oldest, newest))
    if first <= sys.version_info[:2] <= last:
        return sys.executable
    return f">={oldest},<{last[0]}.{last[1] + 1}"


def variables() -> dict[str, str]:
    """Returns the variables to run uv with: this process', and pip's settings where uv has none."""
    found = {}
    listing = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(listing, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    for line in listed.stdout.splitlines():  # none where there is no pip
        setting = _SETTING.fullmatch(line)
        if setting and setting["name"] in _SETTINGS:
            found[_SETTINGS[setting["name"]]] = setting["value"]
    return {**found, **os.environ}


if __name__ == "__main__":  # `installer.py ARGUMENTS`: uv with these and with pip's settings
    found = program()
    if found is None:
        sys.exit("uv is needed: pip install uv")
    os.execve(found, [found, *sys.argv[1:]], variables())
