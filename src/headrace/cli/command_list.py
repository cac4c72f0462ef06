"""The commands by name: where each is, and what it does in one line. Needs no optional library."""

from __future__ import annotations

SUMMARY = "Real images in, training batches out."

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Stream real photographs as training batches."),
    "show": ("show", "Show one batch in numbers and as an image."),
    "bench": ("bench", "Measure the rate and where the time goes."),
    "check": ("check", "Read every file and list the bad ones."),
    "index": ("index_command", "Index shards before a run."),
    "convert": ("convert", "Convert between formats of shards."),
    "pack": ("pack_command", "Scale and encode images once into shards."),
    "diff": ("diff", "Find the first step where two runs differ."),
    "doctor": ("doctor", "Say what is missing here or wrong with a dataset."),
    "top": ("top", "Show what the loaders of running processes do."),
    "cache": ("cache_command", "Check or delete the cache of remote data."),
    "replay": ("replay_command", "Show a sample of a run before and after transforms."),
}
"""For each command its module below `headrace.cli`, and its line in the help, without a comma: fish cuts it there."""

STATUSES: dict[int, str] = {
    0: "done; for check, diff, doctor and cache verify: nothing was found",
    1: "check found a bad sample; diff a difference; doctor a fault; cache verify a damaged block",
    2: "used wrongly: an option, a path or a missing library",
    3: "failed: the data, the script or the disk did not allow it",
    130: "interrupted (Ctrl-C)",
    141: "the reader of a pipe has gone",
}
"""What each exit status means."""


def short_help() -> str:
    """Return the help of the command line where click is not installed.

    >>> "doctor" in short_help()
    True
    """
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {about}" for name, (_, about) in sorted(COMMANDS.items())]
    return "\n".join(
        [
            "Usage: headrace [--version] [--help] COMMAND ...",
            "",
            f"  {SUMMARY}",
            "",
            "Commands:",
            *lines,
            "",
            "All but doctor need: pip install 'headrace[cli]'",
        ]
    )
