"""Compare what targets.yml declares with a Prefect server, and apply the changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from infrastructure.blocks.documents import (
    PROFILE_TYPE,
    BlockChange,
    BlockDocument,
    Reference,
    SavedDocument,
    airbyte_documents,
    cache_documents,
    change_of,
    merge,
    pagerduty_documents,
    slack_documents,
    target_documents,
)
from infrastructure.blocks.given import mended, secrets_in_clear
from infrastructure.commands import command
from infrastructure.errors import ConfigError, preview
from infrastructure.plan import Change, Plan
from infrastructure.profiles import read_profile
from infrastructure.server.automations import (
    AutomationChange,
    AutomationDocument,
    automation_documents,
    change_of_automation,
)
from infrastructure.targets.outputs import blanked_names, output_of, read_secrets
from infrastructure.targets.target_file import SERVICES, Airbyte, DashboardCache, PagerDuty, SlackWebhook, Targets
from infrastructure.targets.warehouses import profile_block
from infrastructure.workspace import targets_file
from infrastructure.yaml_file import all_of, meant

if TYPE_CHECKING:
    from infrastructure.server.client import Server

# Two dbt commands that write to one target at once can leave two current rows in a snapshot.
WRITERS_PER_TARGET = 1


@dataclass(frozen=True)
class PassedOver:
    """A target or service that is not set up, and the variables that are missing for it."""

    name: str
    variables: tuple[str, ...]

    def __str__(self) -> str:
        verb = "is" if len(self.variables) == 1 else "are"
        return f"{self.name}: {all_of(self.variables)} {verb} not set"


@dataclass(frozen=True)
class DeclaredSetup:
    """Everything that can be set up with the secrets that are set.

    Attributes:
        documents: the blocks, each after those that it refers to.
        limits: the names of the concurrency limits.
        targets: the targets and services behind them.
        warnings: sentences about settings that work but will cause problems.
        automations: what the server watches; empty without a destination for alerts.
        given: the block of one's own that each target names, if any.
    """

    documents: tuple[BlockDocument, ...]
    limits: tuple[str, ...]
    targets: tuple[str, ...]
    passed_over: tuple[PassedOver, ...]
    warnings: tuple[str, ...] = ()
    automations: tuple[AutomationDocument, ...] = ()
    given: tuple[tuple[str, Reference], ...] = ()


@dataclass(frozen=True)
class GivenBlock(Change):
    """A block that a person made and a target uses as it is."""


@dataclass(frozen=True)
class LimitChange(Change):
    """What has to happen to one concurrency limit; `old` is its size, None where there is none."""

    old: int | None = None

    @property
    def title(self) -> str:
        """Return what a person calls the limit, and its size."""
        before = f" in place of {self.old}" if self.old is not None else ""
        return f"concurrency limit {self.name}: {WRITERS_PER_TARGET} run at a time{before}"

    def as_document(self, key: str = "name") -> dict[str, Any]:
        """Return the change for a program to read."""
        return {**super().as_document(key), "old": self.old}


def limit_name(target: str) -> str:
    """Return the name of the concurrency limit that a writer to a target holds."""
    return f"dbt-{target}"


def declare(targets: Targets, environ: Mapping[str, str], only: Sequence[str] = ()) -> DeclaredSetup:
    """Return what can be set up.

    Args:
        environ: where secrets are looked up.
        only: the names of the targets to set up; when empty, all of them and the services.

    Raises:
        ConfigError: a target that is asked for does not exist or lacks variables, or a secret is not what its
            setting needs.
    """
    documents: list[BlockDocument] = []
    limits: list[str] = []
    ready: list[str] = []
    passed_over: list[PassedOver] = []
    warnings: list[str] = []
    given: list[tuple[str, Reference]] = []
    for name in only or targets.names:
        missing = targets.unset.get(name, ())
        target = targets.find(name) if only or not missing else None
        secrets, unset = read_secrets(target, environ) if target else ({}, [])
        if missing or unset:
            passed_over.append(PassedOver(name, (*missing, *unset)))
        elif target:
            documents += target_documents(targets.profile, name, target, secrets)
            if blanked := blanked_names(targets.profile, output_of(name, target, secrets)):
                warnings.append(
                    f"{name}: a secret of this target is also a part of its {', '.join(blanked)}. dbt blanks "
                    "secrets out in its logs, and such names with them: choose another password."
                )
            if target.given_block:
                given.append((name, Reference(*target.given_block)))
            limits.append(limit_name(name))
            ready.append(name)
    if only and passed_over:
        raise _lacking(passed_over)
    if not only:
        for name in SERVICES:
            found = _service(targets, name, environ)
            if isinstance(found, PassedOver):
                passed_over.append(found)
            elif found:
                documents += found
                ready.append(name)
    return DeclaredSetup(
        tuple(merge(documents)),
        tuple(limits),
        tuple(ready),
        tuple(passed_over),
        tuple(warnings),
        tuple(_automations(documents)),
        # Where another target declares the block, it is not a person's.
        tuple(each for each in given if each[1].slug not in {document.slug for document in documents}),
    )


def _automations(documents: Sequence[BlockDocument]) -> list[AutomationDocument]:
    found = {document.slug: Reference(document.type_slug, document.name) for document in documents}
    return automation_documents(found.get("webhook/slack-webhook"), found.get("pager-duty-webhook/pagerduty"))


def _service(targets: Targets, name: str, environ: Mapping[str, str]) -> list[BlockDocument] | PassedOver | None:
    if name in targets.unset:
        return PassedOver(name, targets.unset[name])
    service: SlackWebhook | PagerDuty | Airbyte | DashboardCache | None = getattr(targets, name)
    if service is None:
        return None
    secrets, unset = read_secrets(service, environ)
    if unset:
        return PassedOver(name, tuple(unset))
    if isinstance(service, SlackWebhook):
        return slack_documents(service, secrets)
    if isinstance(service, PagerDuty):
        return pagerduty_documents(service, secrets)
    if isinstance(service, DashboardCache):
        return cache_documents(service, secrets)
    return airbyte_documents(service, secrets)


def _lacking(passed_over: Sequence[PassedOver]) -> ConfigError:
    lines = [f"Target {entry}." for entry in passed_over]
    names = all_of(list(dict.fromkeys(variable for entry in passed_over for variable in entry.variables)))
    return ConfigError("\n".join([*lines, f"Set {names} and run the same command again; {targets_file()} says which."]))


def plan(server: Server, declared: DeclaredSetup) -> Plan:
    """Compare what is declared with a server; change nothing.

    Raises:
        ConfigError: a block of one's own is missing, or is not what its target needs.
    """
    given, notes = _given(server, declared)
    blocks = [change_of(doc, server.read_block(doc.type_slug, doc.name)) for doc in declared.documents]
    limits = [_limit_change(name, server.read_limit(name)) for name in declared.limits]
    automations = [change_of_automation(doc, server.read_automation(doc.name)) for doc in declared.automations]
    return Plan((*given, *blocks, *limits, *automations), (*declared.warnings, *notes))


def _given(server: Server, declared: DeclaredSetup) -> tuple[list[GivenBlock], list[str]]:
    """Return the blocks of one's own that targets use, and warnings about secrets that they give away."""
    profiles = {document.name: document for document in declared.documents if document.type_slug == PROFILE_TYPE}
    notes: list[str] = []
    for name, block in declared.given:
        document = profiles[profile_block(name)]
        read_profile(server, name, SavedDocument(document.data, ("", "")))
        if paths := secrets_in_clear(server.block_as_shown(block)):
            notes.append(given_away(name, block, paths))
    blocks = dict.fromkeys(block for _, block in declared.given)
    return [GivenBlock(block.slug, "left", reason="is yours, and is used as it is") for block in blocks], notes


def given_away(target: str, block: Reference, paths: Sequence[str]) -> str:
    """Return the warning about a block that shows secrets to every reader, with what mends it."""
    shows = f"{target}: the {block} shows {preview(paths)} in clear to every reader of Prefect's API. "
    if block.type_slug != PROFILE_TYPE:
        return shows + "Save it again with the secret in a field of its own, then change that secret."
    return shows + f"To move that into a Secret block: {command(f'setup --mend-block {block.name}')}"


def _limit_change(name: str, size: int | None) -> LimitChange:
    if size is None:
        return LimitChange(name, "create")
    return LimitChange(name, "unchanged" if size == WRITERS_PER_TARGET else "update", old=size)


def apply(server: Server, planned: Plan) -> None:
    """Apply a plan: limits first, so that every profile that can be loaded has its limit.

    Automations come last, as they refer to blocks.
    """
    for limit in planned.only(LimitChange):
        if limit.is_change:
            server.save_limit(limit.name, WRITERS_PER_TARGET)
    for change in planned.only(BlockChange):
        if change.is_change:
            server.save_block(change)
    for automation in planned.only(AutomationChange):
        if automation.is_change and automation.document:
            server.save_automation(automation.document, automation.saved)


def mend(server: Server, name: str) -> str:
    """Move the secrets that a profile block shows in clear into Secret blocks; return what was done.

    Raises:
        ConfigError: there is no such block.
    """
    block = Reference(PROFILE_TYPE, name)
    saved = server.read_block(block.type_slug, block.name)
    if saved is None:
        known = server.block_names(PROFILE_TYPE)
        raise ConfigError(f"There is no {block}{meant(name, known)}. There is: {', '.join(known) or 'none'}.")
    configs = saved.data.get("target_configs")
    if isinstance(configs, Reference) and (inner := server.read_block(configs.type_slug, configs.name)):
        # The secrets are in the block that it refers to.
        block, saved, configs = configs, inner, inner.data
    new = mended(block, saved.data, cast(dict[str, Any], configs))
    if not new.secrets:
        return f"The {block} shows no secret in clear: nothing to mend."
    for secret in new.secrets:
        server.save_block(change_of(secret, server.read_block(secret.type_slug, secret.name)))
    server.rewrite_block(block, new.data)
    names = all_of([secret.slug for secret in new.secrets])
    return (
        f"The {block} looks up what it showed, which is now in {names}. Others may have read it: change it at the "
        "warehouse, then in the Secret block. Flows that load the block themselves now need its variables: see "
        "docs/warehouses.md."
    )
