"""The options of the services and of the M-step's job, as flags and as environment variables.

Each option is a field. `--max-row-tokens 512` and `SEAL_MAX_ROW_TOKENS=512` are the same; a flag
wins. The engine's and the server's own settings are taken over with their defaults, bounds and
words, so that there is no second list to keep. This module is light: no torch, no gRPC server.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from seal import refusals
from seal.errors import InvalidInput
from seal.files import given_path
from seal.rpc.settings import ServerSettings
from seal.settings import EngineSettings, Settings
from seal.settings.vllm import VllmSettings
from seal.telemetry import LogFormat, writes_json

Part = TypeVar("Part", bound=Settings)

HOW_IT_ENDS = """
On SIGTERM it becomes NOT_SERVING, still accepts calls for --unready-seconds, then refuses them and
lets the running work end within --grace-seconds; a second signal ends it at once.

Exit codes: 0 ended by a signal, 2 a wrong option, model, address or store, 42 permanent error,
43 worth a retry (a broken engine, a store that is away, a second signal).
"""
"""What the help of every service ends with."""

LOOPBACK = "127.0.0.1"
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")


def in_container(
    environment: Mapping[str, str] = os.environ, *, files: tuple[str, ...] = _CONTAINER_FILES
) -> bool:
    """Whether this process runs in a container, where a scraper comes from outside.

    Kubernetes sets KUBERNETES_SERVICE_HOST, podman and systemd-nspawn `container`; docker and
    podman leave a file at the root.
    """
    return any(map(environment.get, _CONTAINER_VARIABLES)) or any(
        Path(file).exists() for file in files
    )


def all_addresses() -> str:
    """What takes calls at every address of a machine, by IPv4 and by IPv6 as far as it has them."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - a container's network


_CONFIG = SettingsConfigDict(
    alias_generator=None,
    env_prefix="SEAL_",
    env_ignore_empty=True,
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_show_env_vars=True,
    cli_hide_none_type=True,
)


class ProcessOptions(BaseSettings):
    """What every process can be told."""

    model_config = _CONFIG

    artifacts: str
    """Artifact store that holds the adapters: a directory, file://, s3:// or gs://."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: LogFormat = "auto"
    """auto writes to a terminal for people, else JSON lines."""

    program: ClassVar[str] = ""
    """What the help calls the command."""
    ends: ClassVar[str] = ""
    """What the help ends with."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """The docstring of a command's own options is what its help begins with."""
        super().__init_subclass__(**arguments)
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n{cls.ends}"

    @classmethod
    def parse(cls, arguments: list[str]) -> Self:
        """Options of a command line, with what it leaves out from the environment.

        Ends the process after --help, and with 2 and the list of options for an unknown one.
        Raises InvalidInput naming an option that is missing or out of its bounds.
        """
        try:
            return cls(_cli_parse_args=arguments, _cli_prog_name=cls.program)  # type: ignore[call-arg]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            about = refusals.schema_at(cls, first["loc"])
            raise _wrong(
                str(first["loc"][0]),
                refusals.problem(first, about),
                "" if first["type"] == "missing" else refusals.remedy(first, about),
            ) from error
        except SettingsError as error:
            raise InvalidInput(str(error), remedy="see --help") from error

    @property
    def writes_json(self) -> bool:
        """JSON lines or not, decided."""
        return writes_json(self.log_format)

    def part(self, kind: type[Part]) -> Part:
        """The options that belong to one of the settings models, for example `EngineSettings`."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


class EngineOptions(EngineSettings, ProcessOptions):
    """What every process with an engine can be told."""

    model_config = _CONFIG

    model: str = "smollm2-135m"
    """Base model: smollm2-135m, a directory, file:// or org/model[@revision]. Requests name it
    exactly as it is given here."""
    model_cache: str = ""
    """Directory of models, as `seal models pull NAME --to DIR` fills it; it may be mounted
    read-only. Empty: the user's cache."""
    model_wait_seconds: float = Field(default=0.0, ge=0)
    """How long a model that is not there yet, or not whole, is waited for; a model's volume may be
    filled meanwhile. 0: it must be there."""
    offline: bool = False
    """Never download: the model must be in the cache."""

    writes: ClassVar[bool] = False
    """Whether the process writes to the artifact store; the others may mount it read-only."""

    @property
    def models_dir(self) -> Path | None:
        """Directory of models; None for the user's cache.

        Raises NotFound for the home of nobody.
        """
        return given_path(self.model_cache, field="model_cache") if self.model_cache else None


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line, or the environment, asks for logs in JSON, also a wrong one."""
    asked = [os.environ.get("SEAL_LOG_FORMAT", "")]
    asked += [value for option, value in pairwise(arguments) if option == "--log-format"]
    asked += [one.partition("=")[2] for one in arguments if one.startswith("--log-format=")]
    return asked[-1] == "json"


class ServerOptions(ServerSettings, ProcessOptions):
    """What every process that serves can be told."""

    model_config = _CONFIG

    address: str = f"{LOOPBACK}:0"
    """host:port to listen on (port 0 takes a free one), or unix:/path/to/socket."""
    metrics_address: str = ""
    """Address that the Prometheus metrics listen on. Empty: 127.0.0.1, but all in a container (::,
    or 0.0.0.0 without IPv6), where a scraper comes from outside. A container is known by
    KUBERNETES_SERVICE_HOST or `container` in the environment, or by /.dockerenv or
    /run/.containerenv."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """HTTP port of the metrics; 0 for none."""
    unready_seconds: float = Field(default=5.0, ge=0)
    """After SIGTERM: seconds between NOT_SERVING and refusing calls, as long as load balancers need
    to notice."""
    grace_seconds: float = Field(default=30.0, ge=0)
    """After that: seconds that running work may take to end."""

    ends: ClassVar[str] = HOW_IT_ENDS

    @property
    def metrics_host(self) -> str:
        """Address of the metrics, decided."""
        return self.metrics_address or (all_addresses() if in_container() else LOOPBACK)


class ServiceOptions(EngineOptions, ServerOptions):
    """What every service with a model can be told."""


class TextOptions(ServiceOptions, VllmSettings):
    """What a service that writes or evaluates can be told."""

    backend: Literal["engine", "vllm"] = "engine"
    """What computes: the engine, or vLLM (an extra, in an environment of its own), which the
    options called vllm... belong to."""


def _wrong(name: str, problem: str, may_be: str) -> InvalidInput:
    flag = "--" + name.replace("_", "-")
    given_by = f"{flag} or SEAL_{name.upper()}"
    return InvalidInput(
        f"{flag}: {problem}",
        field=name,
        remedy=f"{may_be} by {given_by}; --help lists what is possible"
        if may_be
        else f"give {given_by}; --help lists what is possible",
    )


def _by_their_own_names(options: type[ProcessOptions]) -> None:
    """Take off the names that the fields have in files: flags and variables have their own."""
    for field in options.model_fields.values():
        field.alias = field.validation_alias = field.serialization_alias = None
    options.model_rebuild(force=True)


_by_their_own_names(EngineOptions)
_by_their_own_names(ServerOptions)
_by_their_own_names(ServiceOptions)
_by_their_own_names(TextOptions)
