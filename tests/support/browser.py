"""Headless Chromium: what a page becomes, what goes wrong in it, and what it asks the network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@dataclass(frozen=True)
class Visit:
    """What the browser made of a page.

    Attributes:
        dom: The document as the browser has it.
        errors: Lines of the console.
        requests: Addresses that the page asked the network for.
    """

    dom: str
    errors: tuple[str, ...]
    requests: tuple[str, ...]


def visit(page: Path, *, query: str = "", width: int = 1200) -> Visit:
    """Opens a page where no host's name can be resolved; the query begins with "?"."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        done = _run(
            folder, f"--window-size={width},900", "--dump-dom", "--virtual-time-budget=2000",
            "--enable-logging=stderr", "--log-level=0", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={log}", page.as_uri() + query,
        )  # fmt: skip
        events = json.loads(log.read_text())["events"]
    errors = tuple(re.findall(r"CONSOLE:\d+\] (.*)", done.stderr))
    return Visit(done.stdout, errors, tuple(dict.fromkeys(_requested(events))))


def _requested(events: list[dict[str, Any]]) -> list[str]:
    """Addresses with an origin: the browser's own errands are none of the page's."""
    found = [event.get("params", {}) for event in events]
    urls = [p["url"] for p in found if p.get("initiator", "not an origin") != "not an origin"]
    return [url for url in urls if not url.startswith(("file:", "data:"))]


def screenshot(page: Path, image: Path, *, width: int = 1200, dark: bool = False) -> None:
    """Writes a picture of the page's upper part."""
    with tempfile.TemporaryDirectory() as folder:
        scheme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
        size, target = f"--window-size={width},900", f"--screenshot={image}"
        _run(folder, size, target, "--hide-scrollbars", *scheme, page.as_uri())


def _run(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [CHROMIUM, "--headless=new", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    done = subprocess.run(
        [*command, *sandbox, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done
