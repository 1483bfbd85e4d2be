"""What tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.house import House

# How long an example takes says something of the machine and of what else it does, and nothing of the code.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu skip where there is none, and say so."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        import torch

        if not torch.cuda.is_available():
            for item in wanting:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A project with the real train.py and plumbing, and stages that take no time."""
    return House(tmp_path / "house")
