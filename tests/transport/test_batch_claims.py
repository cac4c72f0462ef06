"""Claims on batches: one maker at a time, and news for those that wait."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

from headrace.transport.batch_claims import claim, notify, watch

if TYPE_CHECKING:
    from pathlib import Path

FORK = multiprocessing.get_context("fork")


def has_news(file: int, milliseconds: int = 0) -> bool:
    """Poll a watched claim."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(milliseconds))


def test_one_maker_at_a_time(tmp_path: Path) -> None:
    """Refuse a second claim until the first is released."""
    first = claim(tmp_path / "claim")
    assert first is not None
    assert claim(tmp_path / "claim") is None
    first.release()
    first.release()
    second = claim(tmp_path / "claim")
    assert second is not None
    second.release()
    assert not list(tmp_path.iterdir())


def test_who_waits_hears_of_the_batch(tmp_path: Path) -> None:
    """Tell all that watch a claim, once and for all, while it is still held."""
    mine = claim(tmp_path / "claim")
    assert mine is not None
    watched = [watch(tmp_path / "claim") for _ in range(2)]
    assert all(file is not None and not has_news(file) for file in watched)
    notify(tmp_path / "claim")
    for file in watched:
        assert file is not None
        assert has_news(file)
        os.close(file)
    mine.release()


def test_who_waits_hears_of_a_release(tmp_path: Path) -> None:
    """See the end of a claim that gave nothing."""
    mine = claim(tmp_path / "claim")
    assert mine is not None
    file = watch(tmp_path / "claim")
    assert file is not None
    mine.release()
    assert has_news(file)
    os.close(file)


def test_nobody_is_watched_without_a_claim(tmp_path: Path) -> None:
    """Return None where there is no claim, or one whose maker has died."""
    assert watch(tmp_path / "claim") is None
    os.mkfifo(tmp_path / "claim")
    assert watch(tmp_path / "claim") is None
    notify(tmp_path / "claim")
    notify(tmp_path / "other")


def _claim_and_wait(path: Path, ready: Any) -> None:
    _ = claim(path)
    ready.set()
    signal.pause()


def test_the_death_of_a_maker_is_news(tmp_path: Path) -> None:
    """Kill a process with a claim: who watches wakes at once, and can claim the batch."""
    ready = FORK.Event()
    maker = FORK.Process(target=_claim_and_wait, args=(tmp_path / "claim", ready))
    maker.start()
    assert ready.wait(60)
    assert claim(tmp_path / "claim") is None
    file = watch(tmp_path / "claim")
    assert file is not None
    assert not has_news(file)
    os.kill(maker.pid or 0, signal.SIGKILL)
    assert has_news(file, 60_000)
    maker.join()
    os.close(file)
    mine = claim(tmp_path / "claim")
    assert mine is not None
    mine.release()


def test_a_forked_child_keeps_no_claim(tmp_path: Path) -> None:
    """Release a claim while a forked child lives: it is free, and its watchers hear of it."""
    mine = claim(tmp_path / "claim")
    assert mine is not None
    go = FORK.Event()
    child = FORK.Process(target=go.wait)
    child.start()
    file = watch(tmp_path / "claim")
    assert file is not None
    mine.release()
    assert has_news(file, 60_000)
    os.close(file)
    go.set()
    child.join()


def test_another_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    """Refuse to claim by a file that is no FIFO, and leave no descriptor behind."""
    (tmp_path / "claim").write_text("mine")
    with pytest.raises(FileExistsError, match="no FIFO"):
        claim(tmp_path / "claim")
