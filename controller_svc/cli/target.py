"""What a command line says of the server that it means."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from controller_svc.cli.messages import program
from controller_svc.cli.options import DEFAULT_ROOT, ROOT_VARIABLE, SERVER_VARIABLE
from seal.client import Adaptation, Client, ClientOptions
from seal.client.calls import OnRetry


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whom a command talks to."""

    server: str
    """Address of a remote one; empty for this machine's."""
    namespace: str
    root: str
    """Artifact store of this machine's."""

    @property
    def reach(self) -> str:
        """Options that lead another command to the same place; empty where it needs none."""
        options = {
            "--server": self.server,
            "--namespace": self.namespace,
            "--root": "" if self.server else self._root,
        }
        given = [f"{name} {shlex.quote(value)}" for name, value in options.items() if value]
        if not self.server and os.environ.get(SERVER_VARIABLE):
            given.insert(0, "--server ''")
        return " ".join(given)

    @property
    def _root(self) -> str:
        """Empty where another command without --root takes the same."""
        usual = self.root == DEFAULT_ROOT and not os.environ.get(ROOT_VARIABLE)
        return "" if usual else self.root

    def resume(self, adaptation: Adaptation) -> str:
        """The command that goes on with an adaptation of the root at which nobody works."""
        options = {
            "--root": self._root,
            "--model": adaptation.base.name if adaptation.base is not None else "",
        }
        given = [part for name, value in options.items() if value for part in (name, value)]
        return shlex.join([program(), "serve", *given])

    def client(
        self,
        address: str,
        on_retry: OnRetry | None = None,
        *,
        retry_seconds: float = ClientOptions.retry_seconds,
    ) -> Client:
        """A client of a server."""
        options = ClientOptions(
            namespace=self.namespace, on_retry=on_retry, retry_seconds=retry_seconds
        )
        return Client(address, options=options)
