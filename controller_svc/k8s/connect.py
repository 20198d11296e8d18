"""Where the API server is, and who this process is to it.

In a pod both stand in the files of its service account, elsewhere in the kubeconfig. One client has
the credentials for all: its requests, and the watch-streams of `session_of`. A token that the
cluster renews is read anew.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from seal.errors import InvalidInput

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
UNLIMITED = 0
"""Connections at once: each watch-stream holds one for as long as it lasts."""


async def connect() -> ApiClient:
    """A client of the cluster's API server; the caller closes it.

    Raises:
        InvalidInput: this is no pod with a service account, and there is no kubeconfig.

    """
    settings = Configuration()
    try:
        config.load_incluster_config(settings)
    except config.ConfigException as no_pod:
        try:
            await config.load_kube_config(
                os.environ.get("KUBECONFIG"), client_configuration=settings
            )
        except (config.ConfigException, OSError) as error:
            raise InvalidInput(
                f"there is no cluster to talk to: {no_pod} {error}",
                field="KUBECONFIG",
                remedy="run it in a pod with a service account, or let $KUBECONFIG name a file",
            ) from error
    settings.connection_pool_maxsize = UNLIMITED
    settings.proxy = settings.proxy or _proxy_of(settings.host)
    client = ApiClient(settings)
    _trust_no_environment(client)
    return client


def _proxy_of(host: str) -> str | None:
    """The proxy that the environment names for a server ($HTTPS_PROXY, $NO_PROXY)."""
    url = urlsplit(host)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


def _trust_no_environment(client: ApiClient) -> None:
    """Let the client not ask for a proxy, in a thread, before each request: it is known."""
    rest = client.rest_client
    connector = rest.pool_manager.connector
    rest.pool_manager.detach()
    rest.pool_manager = aiohttp.ClientSession(connector=connector)


@asynccontextmanager
async def session_of(client: ApiClient) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session that shares the client's connections and its credentials."""

    async def authorized(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        for credential in (await client.configuration.auth_settings()).values():
            request.headers[credential["key"]] = credential["value"]
        return await send(request)

    connector = client.rest_client.pool_manager.connector
    async with aiohttp.ClientSession(
        connector=connector, connector_owner=False, middlewares=(authorized,), trust_env=True
    ) as session:
        yield session


def own_namespace(file: Path = NAMESPACE_FILE) -> str:
    """The namespace of this pod; empty outside of one."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def served_namespaces(given: str) -> tuple[str, ...]:
    """The namespaces of a comma-separated list; that of this pod if it is empty.

    Raises:
        InvalidInput: it is empty, and this is no pod.

    """
    named = tuple(dict.fromkeys(one.strip() for one in given.split(",") if one.strip()))
    if named:
        return named
    if own := own_namespace():
        return (own,)
    raise InvalidInput(
        "no namespace is given, and this is no pod that has one",
        field="namespaces",
        remedy="name them by --namespaces or SEAL_NAMESPACES, with commas between",
    )
