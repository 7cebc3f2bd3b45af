"""Fixtures that several test modules share."""

import os
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # reference data that is no part of the repository

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder


@pytest.fixture(scope="session")
def gart() -> Path:
    """Formulas and renders of the 1995 program."""
    return _folder("gart")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """SqueezeNet's weights and what another engine computes with them."""
    return _folder("weights")
