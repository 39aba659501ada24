"""Read and write a Prefect server's blocks, limits, automations and runs, with readable errors.

Importing this module imports Prefect, which takes about 2 s: do it where a server is needed.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    BlockDocumentCreate,
    BlockDocumentUpdate,
    BlockSchemaCreate,
    BlockTypeCreate,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from infrastructure.blocks.block_types import BlockType, block_type
from infrastructure.blocks.documents import BlockChange, Reference, SavedDocument
from infrastructure.errors import ConfigError, DriftError, UpstreamUnavailable
from infrastructure.proxy import through_proxy
from infrastructure.server.automations import AutomationDocument, SavedAutomation

_CONNECT_SECONDS = 10.0
# For a temporary server to start. Prefect allows 20 s, which is too short on a busy machine.
_START_SECONDS = 120
_ANSWER_SECONDS = 60.0
_NO_CONTENT = 204
# The first whose concurrency limits have leases that run out; 3.4 got them on the way.
OLDEST_SERVER = (3, 5)
_new_enough: set[str] = set()
# Transient refusals: a timeout, and too many requests.
_PASSING = (408, 429)
# Flow runs per page, which the server limits, and tags per query, which a query can hold.
_PAGE = 200
_TAGS_AT_ONCE = 100


class Server:
    """Read and write what this project keeps on a Prefect server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._schema_ids: dict[str, tuple[UUID, UUID]] = {}
        self._document_ids: dict[tuple[str, str], UUID] = {}

    @property
    def client(self) -> SyncPrefectClient:
        """Return Prefect's client, for what only one other module reads or writes."""
        return self._client

    def read_block(self, type_slug: str, name: str) -> SavedDocument | None:
        """Return a block with its secrets, or None when there is none of that name."""
        try:
            document = self._client.read_block_document_by_name(name, type_slug, include_secrets=True)
        except ObjectNotFound:
            return None
        data: dict[str, Any] = dict(document.data)
        for field, reference in document.block_document_references.items():
            block = reference["block_document"]
            data[field] = Reference(block["block_type"]["slug"], block["name"])
        self._document_ids[type_slug, name] = document.id
        schema = document.block_schema
        return SavedDocument(data, (schema.checksum, schema.version) if schema else ("", ""))

    def block_as_shown(self, block: Reference) -> dict[str, Any]:
        """Return the content of a block that is there as every reader of the API is shown it, secrets as ****."""
        return dict(self._client.read_block_document_by_name(block.name, block.type_slug, include_secrets=False).data)

    def block_names(self, type_slug: str) -> list[str]:
        """Return the names of all blocks of a type."""
        try:
            documents = self._client.read_block_documents_by_type(type_slug, include_secrets=False)
        except ObjectNotFound:
            return []
        return sorted(document.name for document in documents if document.name)

    def save_block(self, change: BlockChange) -> None:
        """Create or update a block as a change says; the blocks it refers to have to be there.

        Raises:
            DriftError: the block, or one that it refers to, has been deleted since the change was planned.
        """
        document = change.document
        type_id, schema_id = self._register(document.type)
        data = {key: self._saved_form(value) for key, value in document.data.items()}
        if change.action == "create":
            create = BlockDocumentCreate(
                name=document.name, data=data, block_type_id=type_id, block_schema_id=schema_id
            )
            try:
                created = self._client.create_block_document(create)
            except ObjectAlreadyExists:
                pass  # Another process created it since: it is updated to what is declared.
            else:
                self._document_ids[document.type_slug, document.name] = created.id
                return
        # Left to its default, merge_existing_data would keep fields that are no longer declared.
        update = BlockDocumentUpdate(block_schema_id=schema_id, data=data, merge_existing_data=False)
        try:
            self._client.update_block_document(self._document_id(document.type_slug, document.name), update)
        except ObjectNotFound as exc:
            raise _gone(document.slug) from exc

    def rewrite_block(self, block: Reference, data: dict[str, Any]) -> None:
        """Replace the content of a block that is there, whatever the version of its type."""
        saved = {key: self._saved_form(value) for key, value in data.items()}
        update = BlockDocumentUpdate(data=saved, merge_existing_data=False)
        self._client.update_block_document(self._document_id(block.type_slug, block.name), update)

    def read_limit(self, name: str) -> int | None:
        """Return the size of a global concurrency limit, or None when there is none or it is not active."""
        try:
            limit = self._client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return None
        return limit.limit if limit.active else None

    def save_limit(self, name: str, limit: int) -> None:
        """Create a global concurrency limit, or correct and activate the existing one."""
        try:
            self._client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
        except ObjectAlreadyExists:
            update = GlobalConcurrencyLimitUpdate(limit=limit, active=True, slot_decay_per_second=0.0)
            self._client.update_global_concurrency_limit(name, update)

    def read_automation(self, name: str) -> SavedAutomation | None:
        """Return an automation, or None when there is none of that name; where there are several, the newest."""
        found = self._client.read_automations_by_name(name)
        if not found:
            return None
        document = found[0].model_dump(mode="json")
        trigger = {key: value for key, value in document["trigger"].items() if key != "id"}
        trigger |= {key: sorted(trigger.get(key) or ()) for key in ("after", "expect", "for_each")}
        return SavedAutomation(
            id=str(found[0].id),
            description=document["description"],
            is_enabled=document["enabled"],
            trigger=trigger,
            actions=tuple(self._named_block(action) for action in document["actions"]),
            doubles=tuple(str(double.id) for double in found[1:]),
        )

    def save_automation(self, document: AutomationDocument, saved: SavedAutomation | None) -> None:
        """Create an automation, or update the saved one; its blocks must exist."""
        automation = AutomationCore.model_validate(
            {
                "name": document.name,
                "description": document.description,
                "enabled": True,
                "trigger": document.trigger,
                "actions": [
                    {key: self._block_id(value) for key, value in action.items()} for action in document.actions
                ],
            }
        )
        if saved is None:
            self._client.create_automation(automation)
            return
        self._client.update_automation(UUID(saved.id), automation)
        for double in saved.doubles:
            self._client.delete_automation(UUID(double))

    def delete_automation(self, name: str) -> None:
        """Delete every automation of a name, if there are any."""
        for automation in self._client.read_automations_by_name(name):
            self._client.delete_automation(automation.id)

    def _named_block(self, action: dict[str, Any]) -> dict[str, Any]:
        """Return an action with the name of its block in place of the id, where that block exists."""
        block_id = action.get("block_document_id")
        if block_id is None:
            return action
        try:
            block = self._client.read_block_document(UUID(block_id), include_secrets=False)
        except ObjectNotFound:
            return action
        slug = block.block_type.slug if block.block_type else ""
        return {**action, "block_document_id": Reference(slug, str(block.name))}

    def _block_id(self, value: object) -> object:
        return str(self._document_id(value.type_slug, value.name)) if isinstance(value, Reference) else value

    def tags_of_runs(self, tags: Sequence[str]) -> list[list[str]]:
        """Return the tags of every flow run that has one of these."""
        found: list[list[str]] = []
        for first in range(0, len(tags), _TAGS_AT_ONCE):
            wanted = FlowRunFilter(tags=FlowRunFilterTags(any_=list(tags[first : first + _TAGS_AT_ONCE])))
            offset = 0
            while page := self._client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=offset):
                found += [run.tags for run in page]
                offset += len(page)
        return found

    def start_run(self, deployment: str, parameters: dict[str, Any], tags: Sequence[str], idempotency_key: str) -> str:
        """Start a run of a deployment, or find the one that was started with this key; return its id.

        Args:
            deployment: <flow>/<deployment>.

        Raises:
            ConfigError: there is no such deployment.
        """
        try:
            deployment_id = self._client.read_deployment_by_name(deployment).id
        except ObjectNotFound as exc:
            raise ConfigError(
                f"The Prefect server has no deployment {deployment}, so no run of it can be started. Deploy or serve "
                "that flow under that name, or name another deployment."
            ) from exc
        run = self._client.create_flow_run_from_deployment(
            deployment_id, parameters=parameters, tags=tags, idempotency_key=idempotency_key
        )
        return str(run.id)

    def check(self) -> None:
        """Raise what `connect` turns into words when the answers do not come from a Prefect API."""
        error = self._client.api_healthcheck()
        if error is not None:
            raise error

    def _document_id(self, type_slug: str, name: str) -> UUID:
        key = (type_slug, name)
        if key not in self._document_ids and self.read_block(type_slug, name) is None:
            raise _gone(f"{type_slug}/{name}")
        return self._document_ids[key]

    def _saved_form(self, value: object) -> object:
        if isinstance(value, Reference):
            return {"$ref": {"block_document_id": str(self._document_id(value.type_slug, value.name))}}
        return value

    def _register(self, wanted: BlockType) -> tuple[UUID, UUID]:
        """Return the ids of a block type and its schema, made if need be, those that it refers to first."""
        if wanted.slug in self._schema_ids:
            return self._schema_ids[wanted.slug]
        for nested in wanted.nested:
            self._register(block_type(nested))
        try:
            type_id = self._client.read_block_type_by_slug(wanted.slug).id
        except ObjectNotFound:
            try:
                type_id = self._client.create_block_type(BlockTypeCreate(**wanted.settings)).id
            except ObjectAlreadyExists:
                type_id = self._client.read_block_type_by_slug(wanted.slug).id
        try:
            schema_id = self._client.read_block_schema_by_checksum(wanted.checksum, wanted.version).id
        except ObjectNotFound:
            create = BlockSchemaCreate(
                fields=wanted.fields,
                block_type_id=type_id,
                capabilities=wanted.capabilities,
                version=wanted.version,
            )
            schema_id = self._client.create_block_schema(create).id
        self._schema_ids[wanted.slug] = (type_id, schema_id)
        return type_id, schema_id


def api_address() -> str | None:
    """Return the address of the Prefect API in use, without credentials; None when there is none."""
    url = get_current_settings().api.url
    if not url:
        return None
    parts = urlsplit(str(url))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def connect(report: Callable[[str], None] | None = None, answer_seconds: float = _ANSWER_SECONDS) -> Iterator[Server]:
    """Open the Prefect server that the current settings name; without one, Prefect starts a temporary one.

    Args:
        report: called with a sentence when something takes long.
        answer_seconds: how long to wait for each answer.

    Raises:
        ConfigError: the address is not a Prefect API, the server is too old, or it refuses the credentials.
        UpstreamUnavailable: nothing answers, or the server fails.
    """
    address = api_address()
    where = address or "this machine (a temporary one, as PREFECT_API_URL is not set)"
    if address is not None and not _is_web_address(address):
        raise _not_an_api(where)
    if address is None and report:
        report(
            "No Prefect server is configured (PREFECT_API_URL is not set), so a temporary one is started. "
            "This takes about 10 seconds; its data stays on this machine."
        )
    with _patience() if address is None else nullcontext():
        client = _client(where, answer_seconds)
        try:
            with client:
                _require_version(client, where)
                yield Server(client)
        except httpx.HTTPError as exc:
            # The block may send requests to other servers, whose failures are not this server's.
            if not _is_from(exc, client):
                raise
            # A refusal is not chained: Prefect's text of it can repeat what was sent.
            raise in_words(exc) from (None if isinstance(exc, httpx.HTTPStatusError) else exc)


def in_words(error: httpx.HTTPError) -> ConfigError | UpstreamUnavailable:
    """Return the error for a failed request to the Prefect server, with what to do."""
    address = api_address()
    where = address or "this machine (a temporary one, as PREFECT_API_URL is not set)"
    if isinstance(error, httpx.HTTPStatusError):
        return _refused(where, error.response.status_code)
    return UpstreamUnavailable(
        f"The Prefect server at {where} does not answer ({error or type(error).__name__}).{through_proxy(where)} "
        f"{_how_to_start(address)}set PREFECT_API_URL to the server in use, as in http://127.0.0.1:4200/api."
    )


def passes_by_itself(error: httpx.HTTPError) -> bool:
    """Return whether a failed request may succeed when repeated: no answer, or a transient one."""
    if not isinstance(error, httpx.HTTPStatusError):
        return True
    return error.response.is_server_error or error.response.status_code in _PASSING


def _client(where: str, answer_seconds: float) -> SyncPrefectClient:
    def require_json(answer: httpx.Response) -> None:
        # Prefect's client would fail with a JSON error on the page of another server.
        kind = answer.headers.get("content-type", "")
        if answer.is_success and "json" not in kind and not _is_empty(answer):
            raise _not_an_api(where)

    timeout = httpx.Timeout(answer_seconds, connect=min(_CONNECT_SECONDS, answer_seconds))
    settings: dict[str, Any] = {"timeout": timeout, "event_hooks": {"response": [require_json]}}
    if not (PREFECT_API_TLS_INSECURE_SKIP_VERIFY.value() or PREFECT_API_SSL_CERT_FILE.value()):
        settings["verify"] = _trusted()
    try:
        return get_client(sync_client=True, httpx_settings=settings)
    except RuntimeError as exc:
        if "ephemeral Prefect API server" not in str(exc):
            raise
        raise UpstreamUnavailable(
            "Prefect's temporary server did not start in time. Try again, or start one yourself with `uv run "
            "prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api."
        ) from exc


def _patience() -> AbstractContextManager[Any]:
    """Give a temporary server time to start. Other settings take Prefect 30 ms, so it is done where there is none."""
    return temporary_settings(set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: _START_SECONDS})


@cache
def _trusted() -> ssl.SSLContext:
    """Return the authorities that Prefect's client trusts by default; reading them takes 20 ms, for every client."""
    return httpx.create_ssl_context(trust_env=False)


def _require_version(client: SyncPrefectClient, where: str) -> None:
    """Make sure, once in a process, that a server knows what is asked of it.

    Raises:
        ConfigError: it is too old.
    """
    if where in _new_enough or client.server_type is not ServerType.SERVER:
        return
    try:
        version = client.api_version()
    except httpx.HTTPStatusError:
        return  # What is wrong, the next request says.
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        raise ConfigError(
            f"The Prefect server at {where} is too old: it is version {version}, and can't keep two runs from writing "
            f"to one target. {'.'.join(map(str, OLDEST_SERVER))} or newer is needed, best what is installed here, "
            f"{__version__}. Upgrade it there: `uv pip install prefect=={__version__}`, then start it again."
        )
    _new_enough.add(where)


def _is_empty(answer: httpx.Response) -> bool:
    return answer.status_code == _NO_CONTENT or answer.headers.get("content-length") == "0"


def _is_web_address(address: str) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _is_from(error: httpx.HTTPError, client: SyncPrefectClient) -> bool:
    """Return whether the failed request was one to this server."""
    try:
        asked, api = error.request.url, client.api_url
    except RuntimeError:
        return False
    return (asked.scheme, asked.host, asked.port) == (api.scheme, api.host, api.port)


def _how_to_start(address: str | None) -> str:
    """Return the beginning of an advice: how to start the server of an address, and "or"."""
    parts = urlsplit(address or "http://127.0.0.1:4200/api")
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return "Start it on its machine, or "
    port = "" if parts.port in (None, 4200) else f" --port {parts.port}"
    return f"Start it with `uv run prefect server start{port}`, or "


def _gone(slug: str) -> DriftError:
    return DriftError(
        f"The block {slug} has been deleted since this was planned. Run the same command again to plan anew."
    )


def _not_an_api(where: str) -> ConfigError:
    return ConfigError(
        f"{where} is not the API of a Prefect server. PREFECT_API_URL ends in /api, as in "
        f"http://127.0.0.1:4200/api; `uv run prefect config view` shows where it is set.{through_proxy(where)}"
    )


def _refused(where: str, status: int) -> ConfigError | UpstreamUnavailable:
    if status in (401, 403):
        return ConfigError(
            f"The Prefect server at {where} refuses the credentials (HTTP {status}). Set PREFECT_API_KEY "
            "(Prefect Cloud) or PREFECT_API_AUTH_STRING (a server of your own)."
        )
    if status in (404, 405):
        return _not_an_api(where)
    return UpstreamUnavailable(
        f"The Prefect server at {where} failed (HTTP {status}). Try again; if it stays so, read its log."
        f"{through_proxy(where)}"
    )
