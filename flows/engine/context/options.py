"""What is asked of a run beside its target and its project: built in one place, and handed on whole.

A new option is a field here, a line of help in `flows/cli/options.py`, and a parameter of the flow that shows it in its
form. One of dbt's says beside its field which commands have it, from which dbt on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.engine.context.command import TAKES_FULL_REFRESH, DbtCommand
from infrastructure.errors import ConfigError
from infrastructure.program import OLDEST

if TYPE_CHECKING:
    from infrastructure.program import Program

# Attempts of a node after its first, for failures that pass by themselves: a lost connection, a lock, a quota.
RETRIES = 2

_RUN_NODES = ("build", "run", "test", "seed", "snapshot")
_BUILDS = ("build", "run")
_SELECTS = (*_RUN_NODES, "compile", "show", "ls")
_FORMS_OF_A_TIME = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class DbtOption:
    """What dbt knows of an option.

    Attributes:
        since: the numbers of the first dbt in which a command has it, by command.
        lacking: generations of dbt that take it and do nothing of it.
        decides: it says what a command does, so that a resumed run has to have the same; otherwise, in which manner.
        is_passed: it is given to dbt as a flag of its field's name; otherwise `DbtCommand` has a field for it.
    """

    since: Mapping[str, tuple[int, int]]
    lacking: frozenset[int] = frozenset()
    decides: bool = True
    is_passed: bool = True


def _verbs(*verbs: str, since: tuple[int, int] = OLDEST, **later: tuple[int, int]) -> dict[str, tuple[int, int]]:
    return {**dict.fromkeys(verbs, since), **later}


def _dbt(default: Any, since: Mapping[str, tuple[int, int]], **more: Any) -> Any:  # noqa: ANN401  (of any field)
    return field(default=default, metadata={"dbt": DbtOption(since, **more)})


# Of the options, those that say what a run does, and are none of dbt's own or a field of `DbtCommand`.
_DECIDING: Mapping[str, Any] = {"decides": True}


@dataclass(frozen=True)
class RunOptions:
    """What is asked of a run; see `dbt_full_pipeline`, whose parameters they are.

    Attributes:
        indirect_selection: which tests of the selected nodes come along, in dbt's words; "empty" for none but those
            that are selected themselves.
        fail_fast: begin no further node once one has failed.
        threads: nodes that run at a time; as the profile says when None.
        resume_run: the run to go on with, by the name of its folder or the beginning of it; with `resume`, the last one
            of the same selection and variables when None.
        allow_nothing: take a selection that matches no node for what was meant.
        empty: build every table without rows, to see that the SQL works.
        sample: build from the rows of a window of time alone, such as "3 days".
        event_time_start: with event_time_end, build the batches of that time in place of the last ones.
        store_failures: keep the rows that each test finds in a table.
    """

    select: str | None = field(default=None, metadata=_DECIDING)
    exclude: str | None = field(default=None, metadata=_DECIDING)
    selector: str | None = field(default=None, metadata=_DECIDING)
    full_refresh: bool = _dbt(False, _verbs(*TAKES_FULL_REFRESH), is_passed=False)
    vars: Mapping[str, Any] = field(default_factory=dict[str, Any], metadata=_DECIDING)
    resume: bool = False
    changed: bool = False
    defer_to: str | None = field(default=None, metadata=_DECIDING)
    retries: int = RETRIES
    timeout_seconds: float | None = None
    wait: bool = True
    freshness: bool = True
    docs: bool = False
    indirect_selection: str | None = _dbt(None, _verbs(*_SELECTS))
    fail_fast: bool = _dbt(False, _verbs(*_RUN_NODES), decides=False)
    threads: int | None = _dbt(None, _verbs(*_RUN_NODES, "compile", "show"), decides=False)
    allow_nothing: bool = False
    resume_run: str | None = None
    empty: bool = _dbt(False, _verbs(*_BUILDS, "compile", snapshot=(1, 9), seed=(1, 12)))
    # dbt 2.0.0-alpha.4 takes it and builds from all rows.
    sample: str | None = _dbt(None, _verbs(*_BUILDS, since=(1, 10)), lacking=frozenset({2}))
    event_time_start: str | None = _dbt(None, _verbs(*_BUILDS, since=(1, 9)))
    event_time_end: str | None = _dbt(None, _verbs(*_BUILDS, since=(1, 9)))
    store_failures: bool = _dbt(False, _verbs("build", "test"))

    def __post_init__(self) -> None:
        if self.changed and self.resume:
            raise ConfigError(
                "--changed and --resume were both given. --changed builds what failed, was skipped or cut off anyway: "
                "leave --resume out."
            )
        if self.changed and self.defer_to:
            raise ConfigError(
                f"--changed compares with this target's own last run, --defer-to with {self.defer_to}: "
                "give only one of them."
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"A run can't have {self.threads} threads. Give it 1 or more.")
        _require_a_window(self.event_time_start, self.event_time_end)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunOptions:
        """Return the options among the parameters of a flow or a task; what is none of them is left out."""
        names = {each.name for each in fields(cls)}
        asked: dict[str, Any] = {name: value for name, value in given.items() if name in names}
        if asked.get("vars", {}) is None:
            asked["vars"] = {}
        return cls(**asked)

    def command(self, verb: str, flags: Sequence[str] = (), nodes: Sequence[str] | None = None) -> DbtCommand:
        """Return the dbt command that does this.

        Args:
            flags: of the command, beside the options.
            nodes: unique ids of all that it is to run, in place of the selection.
        """
        flags = (*flags, *self._flags(verb, decides=True))
        exactly = None if nodes is None else tuple(nodes)
        return DbtCommand(verb, self.select, self.exclude, self.selector, self.full_refresh, self.vars, flags, exactly)

    def manner(self, verb: str) -> list[str]:
        """Return the flags that say how a command runs, whatever it runs: a resume may have others than its run."""
        return self._flags(verb, decides=False)

    def _flags(self, verb: str, decides: bool) -> list[str]:
        found: list[str] = []
        for name, option in DBT_OPTIONS.items():
            value = getattr(self, name)
            if option.is_passed and option.decides == decides and verb in option.since and value not in (None, False):
                found += [flag_of(name)] if value is True else [flag_of(name), str(value)]
        return found

    def parameters(self, of: Sequence[str]) -> dict[str, Any]:
        """Return the plain parameters of these names for a flow that is called with them."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name in of}


# Those of dbt's, by field.
DBT_OPTIONS: Mapping[str, DbtOption] = {
    each.name: each.metadata["dbt"] for each in fields(RunOptions) if "dbt" in each.metadata
}
# Those that say what a run does, which a resumed run has to have again.
DECIDING = tuple(
    each.name
    for each in fields(RunOptions)
    if (DBT_OPTIONS[each.name].decides if each.name in DBT_OPTIONS else each.metadata.get("decides"))
)


def flag_of(name: str) -> str:
    """Return a field's option, as it is typed."""
    return f"--{name.replace('_', '-')}"


_OF_FLAG = {flag_of(name): option for name, option in DBT_OPTIONS.items() if option.is_passed}


def fitting(command: DbtCommand) -> DbtCommand:
    """Return the command without the options that its verb does not have, as where it stands in place of another."""
    kept: list[str] = []
    words = iter(command.flags)
    for word in words:
        name, is_one_word, _ = word.partition("=")
        option = _OF_FLAG.get(name)
        is_kept = option is None or command.verb in option.since
        value = [] if option is None or is_one_word or _is_switch(name) else [next(words, "")]
        kept += [word, *value] if is_kept else []
    return replace(command, flags=tuple(kept))


def _is_switch(flag: str) -> bool:
    return getattr(RunOptions, flag[2:].replace("-", "_")) is False


def require_known(command: DbtCommand, program: Program, target: str) -> None:
    """Refuse the options of a command that its dbt does not have.

    Raises:
        ConfigError: it has them in no release, or in later ones.
    """
    for flag in command.flags:
        name = flag.partition("=")[0]
        option = _OF_FLAG.get(name)
        since = option.since.get(command.verb, OLDEST) if option else OLDEST
        if option is None or (program.numbers >= since and program.generation not in option.lacking):
            continue
        has = f"dbt 1 has it from {since[0]}.{since[1]} on" if since > OLDEST else "dbt 1 has it"
        raise ConfigError(
            f"{program} has no {name} for {command.name}: {has}. Leave {name} out, or name another dbt with --dbt or "
            f"in `dbt` of target {target}."
        )


def _require_a_window(start: str | None, end: str | None) -> None:
    given = {"--event-time-start": start, "--event-time-end": end}
    if not (start or end):
        return
    for name, text in given.items():
        if not text:
            other = next(each for each in given if each != name)
            raise ConfigError(f"{other} was given without {name}. dbt takes both or none.")
    moments = [_moment(name, str(text)) for name, text in given.items()]
    if moments[0] >= moments[1]:
        raise ConfigError(
            f"--event-time-start {start} is not before --event-time-end {end}, which no longer belongs to it."
        )


def _moment(name: str, text: str) -> datetime:
    for form in _FORMS_OF_A_TIME:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise ConfigError(f"{name} was given {text!r}. Write a day or a time, such as 2026-01-31 or 2026-01-31T06:00:00.")
