"""What holds of a target's incidents when two machines have changed its file at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

_GONE = object()


def merged(base: bytes | None, ours: bytes, theirs: bytes) -> bytes:
    """Return the file with what was changed on either side since both were the same.

    What both changed is as it was seen last, and every destination counts as told that either has told. What one
    removed and the other changed stays: an incident is rather told twice than not at all.
    """
    try:
        was, here, there = (cast(dict[str, Any], orjson.loads(each or b"{}")) for each in (base, ours, theirs))
    except orjson.JSONDecodeError:
        # One of them is damaged, which its reader says.
        return theirs
    if here.get("format") != there.get("format"):
        return theirs
    names = dict.fromkeys([*there, *here])
    return orjson.dumps({name: _merged(was.get(name), here.get(name), there.get(name)) for name in names})


def _merged(was: object, here: object, there: object) -> object:
    if not isinstance(here, Mapping) or not isinstance(there, Mapping):
        return here if there is None else there
    before, ours, theirs = (cast(Mapping[str, Any], each or {}) for each in (was, here, there))
    both: dict[str, Any] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        old, one, other = (each.get(key, _GONE) for each in (before, ours, theirs))
        if one is _GONE or other is _GONE:
            kept = other if one is _GONE else one
            # Removed by one, and as it was for the other.
            if kept == old:
                continue
            both[key] = kept
        elif one == old:
            both[key] = other
        elif other == old:
            both[key] = one
        else:
            both[key] = _latest(old, one, other)
    return both


def _latest(old: object, one: object, other: object) -> object:
    """Return what both have changed."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return max(str(one), str(other))
    ours, theirs = cast(Mapping[str, Any], one), cast(Mapping[str, Any], other)
    if "seen_at" not in ours:
        # What one destination was told.
        return ours if str(ours.get("at")) >= str(theirs.get("at")) else theirs
    before = cast(Mapping[str, Any], old if isinstance(old, Mapping) else {})
    latest, earlier = (ours, theirs) if str(ours["seen_at"]) >= str(theirs["seen_at"]) else (theirs, ours)
    # Such as an acknowledgement by the one, while the other has seen it again.
    both = {name: earlier.get(name) if said == before.get(name) else said for name, said in latest.items()}
    return both | {"told": _merged(before.get("told"), ours["told"], theirs["told"])}
