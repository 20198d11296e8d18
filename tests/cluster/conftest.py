"""What the tests on a control plane share."""

from __future__ import annotations

import pytest
from cluster_objects import CRDS
from control_plane import ControlPlane, control_plane

__all__ = ["control_plane"]


@pytest.fixture(scope="session")
def seal_api(control_plane: ControlPlane) -> ControlPlane:
    """A control plane that knows the project's kinds."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    for name in ("restemruns", "adaptations"):
        crd = f"crd/{name}.seal.dev"
        control_plane.kubectl("wait", "--for=condition=Established", crd, "--timeout=20s")
    return control_plane
