"""AdaptationService: a thin shell over `Adaptations`.

It checks the request, asks, and turns what it sees into messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller_svc.adaptations import Adaptations
from controller_svc.api.convert import adaptation_message
from controller_svc.api.requests import parse_key, parse_listing, parse_uid
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]


def register(server: grpc.aio.Server, *, adaptations: Adaptations) -> str:
    """Add the service to `server`; returns its full name for health checks."""
    service = AdaptationService(adaptations)
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(service, server)
    return adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"].full_name


class AdaptationService(adaptation_pb2_grpc.AdaptationServiceServicer):
    """Turns documents into adapters."""

    def __init__(self, adaptations: Adaptations) -> None:
        self._adaptations = adaptations

    async def GetAdaptation(
        self, request: adaptation_pb2.GetAdaptationRequest, context: Context
    ) -> adaptation_pb2.GetAdaptationResponse:
        """Where an adaptation is."""
        key = parse_key(request)
        view = await self._adaptations.get(key.namespace, key.name)
        return adaptation_pb2.GetAdaptationResponse(adaptation=adaptation_message(view))

    async def ListAdaptations(
        self, request: adaptation_pb2.ListAdaptationsRequest, context: Context
    ) -> adaptation_pb2.ListAdaptationsResponse:
        """A page of a namespace's adaptations, by name."""
        listing = parse_listing(request)
        page = await self._adaptations.list(
            listing.namespace,
            after=listing.after,
            limit=listing.limit,
            states=listing.states,
            name_prefix=listing.name_prefix,
        )
        return adaptation_pb2.ListAdaptationsResponse(
            adaptations=[adaptation_message(view) for view in page.views],
            next_page_token=page.views[-1].name if page.more else "",
        )

    async def CancelAdaptation(
        self, request: adaptation_pb2.CancelAdaptationRequest, context: Context
    ) -> adaptation_pb2.CancelAdaptationResponse:
        """Stop an adaptation; what it has finished stays readable."""
        key = parse_key(request)
        view = await self._adaptations.cancel(key.namespace, key.name)
        return adaptation_pb2.CancelAdaptationResponse(adaptation=adaptation_message(view))

    async def DeleteAdaptation(
        self, request: adaptation_pb2.DeleteAdaptationRequest, context: Context
    ) -> adaptation_pb2.DeleteAdaptationResponse:
        """Remove an adaptation."""
        key = parse_key(request)
        await self._adaptations.delete(
            key.namespace,
            key.name,
            uid=parse_uid(request.uid),
            keep_adapters=request.keep_adapters,
        )
        return adaptation_pb2.DeleteAdaptationResponse()
