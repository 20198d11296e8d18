"""What the chart's tests share: a control plane with the namespace of the release."""

from __future__ import annotations

import pytest
from control_plane import ControlPlane, control_plane

__all__ = ["control_plane"]


@pytest.fixture(scope="session")
def restricted(control_plane: ControlPlane) -> ControlPlane:
    """A control plane whose namespace `team` admits only pods of the standard `restricted`."""
    control_plane.kubectl("create", "namespace", "team")
    control_plane.kubectl("label", "ns", "team", "pod-security.kubernetes.io/enforce=restricted")
    return control_plane
