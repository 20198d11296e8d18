"""AdaptationService: a thin shell over `Adaptations` and the files of the artifact store.

It checks the request, asks, and turns what it sees into messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from controller_svc.adaptations import Adaptations
from controller_svc.api.convert import adaptation_message
from controller_svc.api.downloads import Downloads
from controller_svc.api.files import Files
from controller_svc.api.requests import parse_caller, parse_key, parse_listing, parse_uid
from controller_svc.api.submission import Submissions, as_options
from controller_svc.api.watch import told
from seal.errors import InvalidInput
from seal.rpc.convert import adapter_reference
from seal.v1 import adaptation_pb2, adaptation_pb2_grpc, common_pb2

if TYPE_CHECKING:
    import grpc

    from seal.artifacts import ArtifactStore

    Context = grpc.aio.ServicerContext[Any, Any]

CALLER_KEY = "x-seal-caller"
"""Metadata key by which a caller says who it is: request ids are its own."""
MAX_PAGE_BYTES = 3 * 2**20
"""Adaptations in one page; a gRPC client takes 4 MiB unless it is told otherwise."""


def register(
    server: grpc.aio.Server,
    *,
    adaptations: Adaptations,
    store: ArtifactStore,
    max_positions: int = 0,
    stored_bytes: int = 0,
) -> str:
    """Add the service to `server`; returns its full name for health checks.

    `max_positions`: of the base model where it is known; 0 leaves its check to `prepare`.
    `stored_bytes`: of all documents in the store, at most; 0 for any number.
    """
    files = Files(store, stored_bytes=stored_bytes)
    service = AdaptationService(
        adaptations, Submissions(files, max_positions), files, Downloads(store)
    )
    adaptation_pb2_grpc.add_AdaptationServiceServicer_to_server(service, server)
    return adaptation_pb2.DESCRIPTOR.services_by_name["AdaptationService"].full_name


class AdaptationService(adaptation_pb2_grpc.AdaptationServiceServicer):
    """Turns documents into adapters."""

    def __init__(
        self,
        adaptations: Adaptations,
        submissions: Submissions,
        files: Files,
        downloads: Downloads,
    ) -> None:
        self._adaptations, self._submissions = adaptations, submissions
        self._files, self._downloads = files, downloads

    async def UploadDocument(
        self,
        request_iterator: AsyncIterator[adaptation_pb2.UploadDocumentRequest],
        context: Context,
    ) -> adaptation_pb2.UploadDocumentResponse:
        """Store one document that comes in pieces."""
        file = await self._files.receive(request_iterator)
        reference = common_pb2.FileRef(path=file.path, sha256=file.sha256)
        return adaptation_pb2.UploadDocumentResponse(file=reference)

    async def SubmitAdaptation(
        self, request: adaptation_pb2.SubmitAdaptationRequest, context: Context
    ) -> adaptation_pb2.SubmitAdaptationResponse:
        """Accept an adaptation, which then goes on without its caller."""
        caller = parse_caller(_metadata(context, CALLER_KEY))
        key, body_sha256 = await self._submissions.key_of(request, caller=caller)
        view, created = await self._adaptations.requested(key, body_sha256), False
        if view is None:
            submission = await self._submissions.read(request, key, body_sha256)
            try:
                view, created = await self._adaptations.submit(submission)
            except InvalidInput as error:
                raise as_options(error) from error
        return adaptation_pb2.SubmitAdaptationResponse(
            adaptation=adaptation_message(view), created=created
        )

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
        listed, taken = adaptation_pb2.ListAdaptationsResponse(), 0
        for view in page.views:
            message = adaptation_message(view)
            taken += message.ByteSize()
            if listed.adaptations and taken > MAX_PAGE_BYTES:
                listed.next_page_token = listed.adaptations[-1].name
                return listed
            listed.adaptations.append(message)
        listed.next_page_token = page.following
        return listed

    async def WatchAdaptation(
        self, request: adaptation_pb2.WatchAdaptationRequest, context: Context
    ) -> AsyncIterator[adaptation_pb2.WatchAdaptationResponse]:
        """What happens to an adaptation, from any event on to its end."""
        key = parse_key(request)
        after = request.after_sequence
        views = self._adaptations.watch(key.namespace, key.name, events=after)
        async with aclosing(told(views, after_sequence=after)) as events:
            async for event in events:
                yield adaptation_pb2.WatchAdaptationResponse(event=event)

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
        key, uid = parse_key(request), parse_uid(request.uid)
        await self._adaptations.delete(
            key.namespace, key.name, uid=uid, keep_adapters=request.keep_adapters
        )
        return adaptation_pb2.DeleteAdaptationResponse()

    async def DownloadAdapter(  # type: ignore[override]  # it writes, which the stubs do not know
        self, request: adaptation_pb2.DownloadAdapterRequest, context: Context
    ) -> None:
        """Write the files of an adapter, in pieces."""
        reference = adapter_reference(request.adapter, field="adapter")
        await self._downloads.send(reference, context.write)


def _metadata(context: Context, key: str) -> str:
    """A value of the call's metadata; empty if it has none."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""
