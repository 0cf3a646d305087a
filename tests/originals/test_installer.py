"""The installer uv: which Python it is asked for, and which of pip's settings it gets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from torchfgsm.originals import installer

NOW = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_this_python_where_it_fits_else_any_that_does() -> None:
    assert installer.python(NOW, NOW) == sys.executable
    assert installer.python("3.0", "3.99") == sys.executable
    assert installer.python("3.4", "3.5") == ">=3.4,<3.6"


def test_pips_index_is_uvs_unless_uv_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://packages.example/simple\ncert = /some/ca.pem\n"
        "extra-index-url = https://more.example/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    for name in ("PIP_INDEX_URL", "PIP_CERT", "UV_DEFAULT_INDEX", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = installer.variables()
    assert found["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert found["SSL_CERT_FILE"] == "/some/ca.pem"
    assert found["PATH"] == os.environ["PATH"]
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert installer.variables()["UV_DEFAULT_INDEX"] == "https://own.example/simple"


def test_without_pip_there_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert installer.variables() == dict(os.environ)
