"""What a search has found, kept in a file: for the next run on the same machine, over the same dataset."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.checks import shown
from headrace.interop.machine import cpus
from headrace.run.tuning.worker_setting import WorkerSetting
from headrace.storage.blocks import user_folder
from headrace.storage.whole_files import write_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from headrace.run.tuning.space import Space

FORMAT = "headrace workers 2"
MOST_BYTES = 1 << 16
"""No file of ours is longer."""


class Remembered:
    """The file of one machine and one dataset. ``place``: its folder, or True for the one in the user's cache.

    >>> import tempfile
    >>> from headrace.run.tuning.space import Space
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Remembered(folder, {"dataset": "Photos", "samples": 1000})
    ...     file.save(WorkerSetting("threads", 3))
    ...     print(file.load(Space(("threads",), cpus=2)))
    num_workers=3, backend="threads"
    """

    def __init__(self, place: bool | str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
        machine = {"machine": platform.node(), "cpus": cpus(), "python": platform.python_version()}
        self._facts = json.loads(json.dumps({**facts, **machine}, default=repr, sort_keys=True))
        name = hashlib.sha256(json.dumps(self._facts, sort_keys=True).encode()).hexdigest()[:32]
        folder = user_folder("workers") if isinstance(place, bool) else Path(place)
        self.path = folder / f"{name}.json"

    def load(self, space: Space) -> WorkerSetting | None:
        """Return the setting; None where there is none, or with a warning where it cannot be used."""
        try:
            with self.path.open("rb") as file:
                text = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot be read ({error})")
            return None
        try:
            found = json.loads(text)
            setting = self._setting(found)
        except (ValueError, TypeError, KeyError, RecursionError):
            self._warn("is damaged, or not a file of headrace's")
            return None
        if not space.has(setting):
            self._warn(f"has {setting}, which this loader cannot have")
            return None
        return setting

    def _setting(self, found: Any) -> WorkerSetting:
        if found["format"] != FORMAT or found["facts"] != self._facts:
            raise ValueError
        kind, *counts = (found["setting"][name] for name in ("kind", "workers", "prefetch", "threads", "together"))
        if any(type(count) is not int for count in counts) or not isinstance(kind, str):
            raise TypeError
        workers, *others = counts
        if (workers > 0) == (kind == "inline") or workers < 0 or min(others) < 1:
            raise ValueError
        return WorkerSetting(kind, *counts)

    def save(self, setting: WorkerSetting) -> None:
        """Write a setting; warn where it cannot be written."""
        text = json.dumps({"format": FORMAT, "facts": self._facts, "setting": asdict(setting)}, indent=1)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            warnings.warn(f"the workers' setting was not saved in {self.path}: {error}", RuntimeWarning, stacklevel=2)

    def _warn(self, why: str) -> None:
        said = f"{shown(str(self.path))} {why}: it is ignored, and the workers are measured again"
        warnings.warn(said, RuntimeWarning, stacklevel=2)
