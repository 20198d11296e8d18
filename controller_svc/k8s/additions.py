"""What an installation adds to Jobs and their pods."""

from __future__ import annotations

from pydantic import Field

from seal.settings import FileSettings
from seal.settings.cluster import Label
from seal.yaml_files import Tree


class Additions(FileSettings):
    """Beside what the controller says itself, which none of it replaces."""

    labels: dict[str, Label] = Field(default={}, max_length=64)
    """Of Jobs and pods: a team's, a cost centre's, one that an admission policy asks for."""
    annotations: dict[str, str] = Field(default={}, max_length=64)
    """Of the pods, for example a mesh's."""
    volumes: tuple[Tree, ...] = ()
    """Of the pods, as a pod has them: a certificate, a cloud's key file."""
    volume_mounts: tuple[Tree, ...] = ()
    """Where their container has them."""
