"""The changes to jobs in dbt Cloud, to show, to save and to apply."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from deployments.dbt_cloud.model.definition import SECRET_PREFIX, JobDefinition
from infrastructure.plan import UNCHANGED, Change, FieldChange, Plan

CREATE, UPDATE, REFRESH, DELETE, BLOCKED = "create", "update", "refresh", "delete", "blocked"
ACTIONS = (CREATE, UPDATE, REFRESH, DELETE, BLOCKED, UNCHANGED)

_HIDDEN = "(secret)"


@dataclass(frozen=True, kw_only=True)
class JobChange(Change):
    """The change to one job; its name is the one in dbt Cloud.

    Attributes:
        action: one of ACTIONS. A refresh records that the job is still in use; a blocked job needs a decision.
        key: the job's name in its file.
        variables: environment variables: name to set or delete, never with a value.
        seen: fingerprint of the job as it was read; another one at the time of writing means a change meanwhile.
        definition: None for a deletion.
    """

    key: str
    project_id: int
    environment_id: int
    job_id: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    seen: str | None = None
    definition: JobDefinition | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """Return the job's name, and its number where it has one."""
        return self.name if self.job_id is None else f"{self.name} ({self.job_id})"

    def details(self) -> list[str]:
        """Return the differences, with the steps and the schedule of a new job."""
        lines = [it.text() for it in sorted(self.fields, key=lambda it: it.path)]
        if self.action == CREATE and (job := self.definition) is not None:
            new = {"steps": list(job.execute_steps), "schedule": job.local_cron or job.schedule_type}
            lines += [FieldChange(name, None, value).text() for name, value in new.items()]
        return lines + shown_variables(self.variables)

    def as_document(self, key: str = "name") -> dict[str, Any]:
        """Return the change as a JSON document."""
        return {
            "action": self.action,
            "key": self.key,
            key: self.name,
            "project_id": self.project_id,
            "environment_id": self.environment_id,
            "job_id": self.job_id,
            "fields": {it.path: [it.old, it.new] for it in self.fields},
            "variables": dict(self.variables),
            "reason": self.reason,
            "seen": self.seen,
        }


@dataclass(frozen=True, kw_only=True)
class ChangeSet(Plan):
    """All changes in one account, within one scope."""

    account_id: int
    scope: str

    def of(self, *actions: str) -> list[JobChange]:
        """Return the changes with one of these actions."""
        return [change for change in self.only(JobChange) if change.action in actions]

    def as_document(self) -> dict[str, Any]:
        """Return the change set as a JSON document, which `ChangeSet.of_document` reads."""
        counts = self.counts()
        return {
            "account_id": self.account_id,
            "scope": self.scope,
            "counts": {action: counts[action] for action in ACTIONS},
            "digest": self.digest(),
            "changes": [change.as_document() for change in self.changes if change.action != UNCHANGED],
        }

    def digest(self) -> str:
        """Return a digest of the changes, to compare a plan with what would be applied."""
        done = [it.as_document() for it in self.changes if it.action not in (UNCHANGED, REFRESH)]
        done.sort(key=lambda it: (it["action"], it["name"], it["job_id"] or 0))
        content = orjson.dumps([self.account_id, self.scope, done], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:16]

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> ChangeSet:
        """Read a change set back, to be shown or compared; its definitions are in the files."""
        changes: list[JobChange] = []
        for entry in cast(list[dict[str, Any]], document["changes"]):
            fields = cast(dict[str, list[Any]], entry["fields"])
            known: dict[str, Any] = {**entry, "fields": tuple(FieldChange(name, *it) for name, it in fields.items())}
            changes.append(JobChange(**known))
        return cls(account_id=document["account_id"], scope=document["scope"], changes=tuple(changes))

    def text(self, details: bool = True) -> str:
        """Return the change set as text for people."""
        counts = self.counts()
        said = [f"{counts[action]} to {action}" for action in (CREATE, UPDATE, DELETE) if counts[action]]
        said += [f"{counts[BLOCKED]} blocked"] if counts[BLOCKED] else []
        rest = f"{counts[UNCHANGED] + counts[REFRESH]} as they should be"
        summary = f"{self.scope}: {', '.join([*(said or ['nothing to do']), rest])}."
        return "\n".join([*self.lines(details=details, without=() if details else (REFRESH,)), summary])


def shown_variables(names: Mapping[str, str]) -> list[str]:
    """Return what happens to variables, never with their values."""
    return [f"{what} {name}{' ' + _HIDDEN if name.startswith(SECRET_PREFIX) else ''}" for name, what in names.items()]
