"""The options of `python -m controller_svc.k8s`."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from controller_svc.k8s.job_settings import JobSettings
from seal.layers import Layer, validated
from seal.options import LOOPBACK, ProcessOptions, all_addresses, in_container
from seal.yaml_files import parse_yaml, read_text

HOW_IT_ENDS = """
On SIGTERM or SIGINT it stops what it does, gives the lease to whoever stands for it, and ends with
0. Jobs that are at work go on; whoever leads next takes them up.

Exit codes: 0 ended by a signal, 2 a wrong option, store or settings file, 42 permanent error (a
Role that forbids the lease), 43 worth a retry (a store that is away, work that hangs).
"""


class ControllerOptions(ProcessOptions):
    """Look after the RestEMRuns and Adaptations of a cluster.

    Their stages become Jobs, what became of them stands in their status. Of several controllers one
    leads, by a Lease; the others are ready and wait. The cluster is that of the pod's service
    account, elsewhere that of $KUBECONFIG.
    """

    model_config = ProcessOptions.model_config

    program: ClassVar[str] = "python -m controller_svc.k8s"
    ends: ClassVar[str] = HOW_IT_ENDS
    jobs_file: Path
    """YAML file of what the Jobs are made from: images, services, volumes, resources."""
    namespaces: str = ""
    """Namespaces that are looked after, with commas between; empty is the pod's own."""
    lease_name: str = Field(default="seal-controller", min_length=1)
    """Lease that says who leads."""
    lease_namespace: str = ""
    """Its namespace; empty is the pod's own, or the first of those that are looked after."""
    identity: str = ""
    """What this process is called in the lease; no other may be called so. Empty is the host's name
    and a random number."""
    workers: int = Field(default=4, ge=1)
    """Objects that are looked after at once. A look is four or five requests, one after the other:
    more of them at once help only where the API server has processors to spare for them."""
    metrics_port: int = Field(default=9100, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    health_port: int = Field(default=8081, ge=0, le=65535)
    """HTTP port of /healthz (it is alive) and /readyz (what it watches has been seen, or another
    leads); 0 takes a free one."""
    http_address: str = ""
    """Address that both listen on. Empty: 127.0.0.1, but all in a container: ::, or 0.0.0.0
    without IPv6."""

    @property
    def http_host(self) -> str:
        """Address of metrics and health, decided."""
        return self.http_address or (all_addresses() if in_container() else LOOPBACK)

    @property
    def name(self) -> str:
        """Of this process, decided: another each time that it is asked for, unless it was given."""
        return self.identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"

    def jobs(self) -> JobSettings:
        """What the settings file says.

        Raises:
            NotFound: there is no such file.
            InvalidInput: naming file and field.

        """
        name = str(self.jobs_file)
        values = parse_yaml(read_text(self.jobs_file, name), where=name)
        return validated(JobSettings, (Layer(name, values),))
