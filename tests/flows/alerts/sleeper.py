"""A flow that never ends by itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from prefect import flow

from flows.alerts.hooks import with_alerts


@with_alerts
@flow
def sleeper(target: str, pid_file: str) -> None:
    """Write down the id of this process, then wait for ever."""
    draft = Path(f"{pid_file}.draft")
    draft.write_text(str(os.getpid()))
    draft.replace(pid_file)
    threading.Event().wait()
