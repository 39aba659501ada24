"""The door to dbt: every command and question goes through it, and nothing else starts dbt."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from flows.engine.artifacts.artifacts import PROOFS, Artifacts
from flows.engine.artifacts.manifest_file import MANIFEST
from flows.engine.context.command import DbtCommand, Place, arguments
from flows.engine.context.events import DbtEvent
from flows.engine.context.exact_selection import hand_over
from flows.engine.context.options import fitting, require_known
from flows.engine.context.project import Project
from flows.engine.context.project_files import project_settings, yaml_mapping
from flows.engine.context.reporting import current_reporter
from flows.engine.context.state import STATE_VARIABLE, State, dbt_log, state_of
from flows.engine.ledger.failures import crash_of
from flows.engine.process.engines import engine_of, events_variable
from flows.engine.process.environment import child_environment
from flows.engine.process.kept_parse import PARSED_ANEW, KeptParse, parsed_anew
from flows.engine.process.process import DbtProcess
from infrastructure.errors import ConfigError, preview
from infrastructure.private_files import private_folder
from infrastructure.program import find_program

if TYPE_CHECKING:
    from infrastructure.profiles import Profile

# dbt writes its own debug log until it has this size, keeping five; it must not fill a worker's disk.
_LOG_BYTES = 20_000_000
# dbt's debug log costs 5 % of a build of 250 cheap nodes (measured 2026-11-20) and repeats the SQL that stands in
# target/run anyway. Users who want it set dbt's own variable.
_LOG_LEVEL_VARIABLE = "DBT_LOG_LEVEL_FILE"
# A later question removes what a killed one left behind, once no process can be waiting for it any more.
_LEFT_BEHIND_SECONDS = 86_400
_QUESTION = "question-"
_FRESHNESS = "source freshness"
# What a user may set for all projects without changing what is built, or how it is told.
_HARMLESS_SETTINGS = frozenset({"send_anonymous_usage_stats", "hints_enabled", "use_colors", "printer_width"})


@dataclass(frozen=True)
class Record:
    """The run that a command is part of.

    Attributes:
        run_id: what its statements say in the warehouse.
        run_path: the run's folder, where the events are kept.
        batches: says which batches of a model an earlier attempt built; None for a first attempt.
    """

    run_id: str
    run_path: Path
    batches: Path | None = None


class Dbt:
    """dbt for one project and one target."""

    def __init__(self, project: Project, profile: Profile) -> None:
        self.project = project
        self.profile = profile
        self.program = find_program(profile.dbt)
        self.engine = engine_of(self.program)

    def run(
        self, command: DbtCommand, place: Place, descriptors: Sequence[int] = (), record: Record | None = None
    ) -> DbtProcess:
        """Start a command and return its child, to be used in a `with` block.

        Args:
            descriptors: open files that the child keeps open, such as the lock of its target.
            record: None for a command that is no part of a run, such as a look at some rows.

        Raises:
            ConfigError: it could not be started.
        """
        command = fitting(command)
        self.require_able(command)
        has_own_log = record is not None and _LOG_LEVEL_VARIABLE in os.environ
        # dbt takes a flag before its verb or behind it, and refuses one that is given in both places.
        head = [word for word in self.engine.head() if f"--no-{word[2:]}" not in command.flags]
        argv = [*head, *arguments(command, place, self.profile.target)]
        environment = {**child_environment(place.project, self.profile), **self.engine.variables(place)}
        if record:
            argv += ["--log-file-max-bytes", str(_LOG_BYTES)]
            environment |= events_variable(dbt_log(record.run_path, has_own_log))
            environment |= self.engine.run_variables(
                record.run_id, self.profile.target, self.profile.warehouse, record.batches
            )
        if command.verb == _FRESHNESS and not (record and _wants_hooks_with_freshness(place.project)):
            environment |= self.engine.without_hooks()
        argv += [] if has_own_log else self.engine.without_own_log()
        environment |= hand_over(command.nodes, place.selection, environment)
        return DbtProcess(argv, environment, Path.cwd(), descriptors)

    def unproved(self, command: DbtCommand, place: Place, invocation_id: str | None) -> str:
        """Return why nothing proves that a command that seems to have ended well did its work; empty when it is proved.

        Args:
            invocation_id: of that command, as its lines have it.
        """
        name = PROOFS.get(command.verb)
        if name is None:
            return ""
        if Artifacts(place.target_path).proves(name, invocation_id):
            return ""
        return (
            f"it ended as if it had done its work and left no {name} of it, so nothing says what was done. "
            f"It was {self.program}."
        )

    def require_able(self, command: DbtCommand) -> None:
        """Refuse a command that this dbt can't run as it is asked to.

        Raises:
            ConfigError: it lacks an option or what the command is for, or a user's settings would change the run.
        """
        require_known(command, self.program, self.profile.target)
        if self.program.path is not None and self.program.has_user_settings:
            _require_no_user_settings(str(self.program))
        if command.verb == _FRESHNESS and not self.program.has_freshness:
            raise ConfigError(
                f"{self.program} has no check of how fresh sources are: it says that all is well without a look. "
                "Run without it (--no-freshness), or name a dbt 1 with --dbt or in `dbt` of target "
                f"{self.profile.target}."
            )
        if command.verb == "docs generate" and not self.program.has_docs:
            raise ConfigError(
                f"{self.program} does not make the documentation site: run without --docs, or name a dbt 1 with "
                f"--dbt or in `dbt` of target {self.profile.target}."
            )

    def events(self, child: DbtProcess) -> Iterator[DbtEvent]:
        """Yield what a child says, until it closes its end."""
        for line in child.lines():
            event = self.engine.event(line)
            if event is not None:
                yield event

    def ask(
        self,
        command: DbtCommand,
        take: Callable[[DbtEvent], None],
        failing_is_an_answer: bool = False,
        artifact: str | None = None,
    ) -> bytes | None:
        """Run a command that changes nothing, and hand on every line that it logs.

        Args:
            failing_is_an_answer: take exit code 1 for an answer too, such as that of a freshness check.
            artifact: the file of dbt's target folder to return the content of; None is returned when dbt wrote none.

        Raises:
            ConfigError: the project or the selection is wrong.
            DbtRunFailed: dbt could not answer.
        """
        plan = State(state_of(self.project, self.profile.target, os.environ).folder / "plan")
        profiles = plan.write_profiles(self.profile.profiles_yml(self.project.profile))
        with _own_target_path(plan) as target_path:
            place = Place(self.project.folder, profiles, self.project.profile, target_path, log_path=plan.folder)
            self._ask(command, place, take, failing_is_an_answer)
            return (target_path / artifact).read_bytes() if artifact and (target_path / artifact).exists() else None

    def _ask(
        self, command: DbtCommand, place: Place, take: Callable[[DbtEvent], None], failing_is_an_answer: bool
    ) -> None:
        said, code, may_parse_anew = self._answer(command, place, take)
        if may_parse_anew:
            said, code, _ = self._answer(parsed_anew(command), place, take)
            if (place.target_path / MANIFEST).exists():
                current_reporter().note(PARSED_ANEW)
        if code != 0 and not (code == 1 and failing_is_an_answer):
            target, warehouse = self.profile.target, self.profile.warehouse
            raise crash_of(command.name, target, code, "\n".join(said[:10]), place.log_path, warehouse)

    def _answer(
        self, command: DbtCommand, place: Place, take: Callable[[DbtEvent], None]
    ) -> tuple[list[str], int, bool]:
        """Return what went wrong in dbt's words, its exit code, and whether to parse the whole project may help."""
        said: list[str] = []
        kept = KeptParse(command, place, self.program)
        with self.run(command, place) as child:
            for event in self.events(child):
                take(event)
                kept.shown(event)
                if event.level == "error" or not event.name:
                    said.append(event.text)
            code = child.wait()
        return said, code, kept.may_be_to_blame(code)


def _wants_hooks_with_freshness(folder: Path) -> bool:
    """Say whether a project asks for its on-run hooks with a run's freshness check, as well as with its build."""
    flags = project_settings(folder).get("flags")
    return isinstance(flags, dict) and bool(flags.get("source_freshness_run_project_hooks"))


def _require_no_user_settings(program: str) -> None:
    """Refuse a home that would change a run; the dbt of this environment is kept from reading it."""
    settings = Path.home() / ".dbt" / "user_settings.yml"
    flags = sorted((yaml_mapping(settings).get("flags") or {}).keys() - _HARMLESS_SETTINGS)
    if flags:
        raise ConfigError(
            f"{settings} sets {preview(flags)}, which {program} would take, so that a run would be another for another "
            "user. Say it under `flags` in dbt_project.yml, and delete it there."
        )


@contextmanager
def _own_target_path(plan: State) -> Iterator[Path]:
    """Make a folder for what dbt writes while it answers one question, apart from runs and from other questions.

    What the project was parsed to is taken from the last question, and left for the next.
    """
    parsed = plan.parsed
    try:
        private_folder(parsed.parent)
        for left in plan.folder.glob(f"{_QUESTION}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        own = Path(mkdtemp(prefix=_QUESTION, dir=plan.folder))
    except OSError as exc:
        raise ConfigError(
            f"A question to dbt needs a folder in {plan.folder}, which can't be made: {exc.strerror}. "
            f"Free some space or choose another folder with {STATE_VARIABLE}."
        ) from exc
    try:
        # Without it the question takes longer, no more.
        with contextlib.suppress(OSError):
            shutil.copy2(parsed, own / parsed.name)
        yield own
        with contextlib.suppress(OSError):
            (own / parsed.name).replace(parsed)
    finally:
        shutil.rmtree(own, ignore_errors=True)
