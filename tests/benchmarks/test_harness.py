from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FACTS = {"shape": [64, 3, 32, 32], "dtype": "float32", "mean": [0.0, 0.1, 0.2], "std": [1.0, 1.1, 1.2]}


def load(file: str) -> ModuleType:
    # The harness is scripts, not a package; names of its own keep its modules apart from everyone else's.
    name = f"benchmarks_{Path(file).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str((BENCHMARKS / file).parent))  # where a script finds the others
        try:
            spec.loader.exec_module(sys.modules[name])
        finally:
            sys.path.pop(0)
    return sys.modules[name]


report = load("report.py")
data = load("data.py")
common = load("runners/common.py")


def result(rate: float, **changed: Any) -> dict[str, Any]:
    measured = {
        "images_per_s": rate,
        "first_batch_s": 0.25,
        "imports_s": 1.0,
        "epoch_gap_s": None,
        "cpu_s_per_1000": 2.0,
        "peak_pss_mib": 100.0,
        "idle_pss_mib": 50.0,
        "facts": FACTS,
    }
    return measured | changed


def row(name: str, rates: Sequence[float | None], **changed: Any) -> Any:
    runs = [
        report.Run(name, turn, None, "exit status 1: it broke") if rate is None else report.Run(name, turn, found)
        for turn, rate in enumerate(rates)
        for found in [None if rate is None else result(rate, **changed)]
    ]
    return report.Row(name, "2 threads", tuple(runs))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_a_spread_is_the_median_and_both_ends() -> None:
    """Give the middle value, or the mean of the middle two, and the ends; and nothing of nothing."""
    assert report.Spread.of([3, 9, 1]) == report.Spread(3, 1, 9)
    assert report.Spread.of([4, 1, 2, 3]) == report.Spread(2.5, 1, 4)
    assert report.Spread.of([]) is None


def test_ratios_are_taken_round_by_round() -> None:
    """Divide only within a round, and leave out rounds that one side did not finish."""
    assert report.ratios({0: 100, 1: 10, 3: 7}, {0: 50, 1: 5, 2: 1}) == [2, 2]


def test_the_baseline_is_the_fastest_candidate_that_ran() -> None:
    """Fall back to the first whole runner when no candidate ran, and to none when none ran at all."""
    rows = [row("us", [500]), row("a", [100, 100]), row("b", [300, 90]), row("c", [None])]
    assert report.choose_baseline(rows, ("a", "b", "c")).runner == "b"
    assert report.choose_baseline(rows, ("c",)).runner == "us"
    assert report.choose_baseline([row("c", [None])], ("c",)) is None


def test_a_table_gives_medians_spread_and_ratios() -> None:
    """Write one line a runner, with the ratio to the baseline of the same rounds."""
    lines, problems = report.table([row("us", [200, 600, 1500]), row("peer", [100, 200, 500])], ("peer",))
    assert problems == []
    assert cells(lines[0])[:4] == ["runner", "workers", "images/s", "x peer"]
    assert {len(cells(line)) for line in lines} == {len(report.HEADINGS)}
    assert cells(lines[2])[2:6] == ["600 (200..1,500)", "3.00 (2.00..3.00)", "0.250", "n/a"]
    assert cells(lines[3])[3] == "1.00 (1.00..1.00)"


@pytest.mark.parametrize(
    "other",
    [
        {"shape": [64, 32, 32, 3]},
        {"dtype": "float64"},
        {"mean": [0.2, 0.1, 0.6]},
        {"std": [0.004, 0.004, 0.004]},
    ],
)
def test_unlike_work_is_not_compared(other: dict[str, Any]) -> None:
    """Give no ratio to a runner whose batches are of another shape, type or range, and say why."""
    lines, problems = report.table([row("us", [200], facts=FACTS | other), row("peer", [100])], ("peer",))
    assert cells(lines[2])[2:4] == ["200 (200..200)", "not comparable"]
    assert problems[0].startswith("us does not do the same work as peer: ")
    assert len(problems) == 1


def test_goals_are_ratios_to_the_fastest_that_ran() -> None:
    """Compare a runner by round with the fastest of those named; leave out goals whose runners did not run."""
    rows = [row("us", [200, 600]), row("slow", [50, 100]), row("fast", [100, 200]), row("lost", [None, None])]
    wanted = [("us", ("slow", "fast", "lost"), 2.2), ("fast", ("us",), 0.9), ("us", ("lost",), 1), ("no", ("us",), 1)]
    assert report.goals(rows, wanted) == [
        "- us: 2.50 (2.00..3.00) x fast (goal 2.2: reached)",
        "- fast: 0.42 (0.33..0.50) x us (goal 0.9: missed)",
    ]


def test_a_limit_has_nothing_to_compare_and_still_a_ratio() -> None:
    """Compare a runner that delivers no images by its rate alone."""
    lines, problems = report.table([row("limit", [400], facts=None), row("peer", [100])], ("peer",))
    assert cells(lines[2])[3] == "4.00 (4.00..4.00)"
    assert problems == []


def test_a_failed_runner_has_a_line_of_its_own() -> None:
    """Keep a runner that failed in the table, with its error below; one that failed once keeps its numbers."""
    lines, problems = report.table([row("peer", [100, 100]), row("us", [None, 200]), row("lost", [None])], ("peer",))
    assert cells(lines[3])[2] == "200 (200..200) (some rounds failed)"
    assert cells(lines[4])[2] == "failed"
    assert problems == ["us failed: exit status 1: it broke", "lost failed: exit status 1: it broke"]


def test_an_epoch_of_any_length_lists_few_files_again(tmp_path: Path) -> None:
    """Fill the epoch by naming files several times over, and copy none."""
    make_photos(tmp_path / "photos", 3)
    prepared = data.prepare(data.WORKLOADS["photos"], tmp_path / "cache", tmp_path / "photos", 7)
    listed = [line.split("\t") for line in (prepared.folder / "list.tsv").read_text().splitlines()]
    assert [label for _, label in listed] == ["0", "1", "2", "0", "1", "2", "0"]
    assert len({path for path, _ in listed}) == 3
    assert all(Path(path).is_file() for path, _ in listed)


def test_thumbnails_are_made_once(tmp_path: Path) -> None:
    """Cut the asked number of small files from the photos, and find the same files again."""
    make_photos(tmp_path / "photos", 2)
    first, second = (
        data.prepare(data.WORKLOADS["thumbnails"], tmp_path / "cache", tmp_path / "photos", 5) for _ in range(2)
    )
    assert first == second
    paths = [line.split("\t")[0] for line in (first.folder / "list.tsv").read_text().splitlines()]
    assert len(set(paths)) == 5
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (32, 32)


def test_an_interrupted_preparation_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    """Never take half a data set for a whole one."""

    def write(target: Path) -> None:
        (target / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.cached(tmp_path / "set", write)
    assert list(tmp_path.iterdir()) == []


def test_measuring_counts_what_was_delivered() -> None:
    """Leave out of the rate the first batches of an epoch, and read shape, type and range off the batches."""
    images = np.zeros((10, 3, 4, 4), np.float32)
    images[:, 1] = 2
    epochs = common.Epochs(lambda: iter([(images, np.arange(10))] * 8))
    job = common.Job("arrays", [], None, np.zeros(80, np.int64), 4, 10, 2, antialias=False)
    found = common.measure(lambda _: epochs, job, seconds=0.01, warmup=0, memory_seconds=0)
    assert found["images"] % 10 == 0
    assert found["images_per_s"] == pytest.approx(found["images"] / found["steady_s"])
    assert found["facts"] == {
        "shape": [10, 3, 4, 4],
        "dtype": "float32",
        "mean": [0, 2, 0],
        "std": [0, 0, 0],
    }


def test_the_process_tree_holds_its_children() -> None:
    """Count a child's CPU time and memory with its parent's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tree = common.process_tree()
        child.communicate(b"\n")
    if tree:  # elsewhere than on Linux nothing is known, and nothing claimed
        assert {os.getpid(), child.pid} <= tree.keys()


def make_photos(folder: Path, number: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8))
        coarse.resize((250, 190), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)


def run_harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_harness_measures_and_a_broken_runner_does_not_end_it(tmp_path: Path) -> None:
    """Run three real runners and a broken one for a moment, and write a table of all four."""
    make_photos(tmp_path / "photos", 12)
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('out of luck')\n")
    done = run_harness(
        *("--workloads", "photos", "--resize", "plain", "--photos", str(tmp_path / "photos")),
        *("--cache", str(tmp_path / "cache"), "--images", "192", "--rounds", "1"),
        *("--seconds", "0.1", "--warmup", "0", "--memory-seconds", "0"),
        *("--only", "headrace", "opencv-by-hand", "decode-only", "broken", "--runner", f"broken={broken}"),
        *("--baseline", "opencv-by-hand"),
        *("--output", str(tmp_path / "out.md"), "--json", str(tmp_path / "out.json")),
    )
    assert done.returncode == 1, done.stderr  # for one of them failed
    text = (tmp_path / "out.md").read_text()
    assert done.stdout == text
    assert str(tmp_path) not in text
    found = {cells(line)[0]: cells(line) for line in text.splitlines() if line.startswith("| ")}
    assert {"headrace", "opencv-by-hand", "*decode-only* (limit)", "broken"} <= found.keys()
    assert found["runner"][3] == "x opencv-by-hand"
    assert found["opencv-by-hand"][3] == "1.00 (1.00..1.00)"
    for name in ("headrace", "*decode-only* (limit)"):
        assert re.fullmatch(r"[\d,]+ \([\d,]+\.\.[\d,]+\)", found[name][2])
        assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d\.\.\d+\.\d\d\)", found[name][3])
    assert found["broken"][2] == "failed"
    assert "- broken failed: exit status 1: out of luck" in text
    raw = {entry["runner"]: entry for entry in json.loads((tmp_path / "out.json").read_text())}
    assert raw["headrace"]["facts"]["shape"] == [64, 3, 224, 224]
    assert raw["headrace"]["facts"]["dtype"] == "float32"
    assert raw["broken"]["error"] == "exit status 1: out of luck"


def test_an_unknown_runner_is_refused_by_name(tmp_path: Path) -> None:
    """Name the runner that does not exist and those that do, before any work."""
    done = run_harness("--only", "torhc", "--cache", str(tmp_path))
    assert done.returncode == 2
    assert "no runner 'torhc'; there are albumentations, crop-copy, " in done.stderr


def test_an_interrupt_ends_the_runner_and_its_children(tmp_path: Path) -> None:
    """Leave no process of the runner alive, however deaf it is to signals."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    runner = tmp_path / "deaf.py"
    runner.write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"out = os.open({str(pipe)!r}, os.O_WRONLY)\n"
        "os.fork()\n"
        "os.write(out, b'.')\n"
        "while True: signal.pause()\n"
    )
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--workloads", "arrays", "--images", "128"]
    command += ["--only", "deaf", "--runner", f"deaf={runner}", "--cache", str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as harness:
        with pipe.open("rb", buffering=0) as alive:
            assert alive.read(1) + alive.read(1) == b".."
            harness.send_signal(signal.SIGINT)
            # The pipe ends when the last process that holds it does.
            assert alive.read(1) == b""
        assert harness.wait() == 130
