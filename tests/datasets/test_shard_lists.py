"""Lists of shards that wids and Energon keep: what they name is opened, and must be what they say."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from headrace.datasets import WebDataset, open_shards
from headrace.errors import ArgumentError, BadFile, MissingFile

SPLIT = """\
split_parts:
  train:
  - s-{0..1}.tar
  val:
  - 'deep/s-2.tar'  # one
  test: []
exclude: []
"""


def write(path: Path, samples: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for row in range(samples):
            member = tarfile.TarInfo(f"{path.stem}/{row}.txt")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"hi"))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of three, four and five samples; the last in a folder of its own."""
    for number in range(3):
        write(tmp_path / ("deep" if number == 2 else "") / f"s-{number}.tar", 3 + number)
    return tmp_path


def wids(folder: Path, **change: Any) -> Path:
    """Write the JSON of wids as `widsindex create` does, in another order than the names have."""
    listed = [
        {"url": name, "nsamples": samples, "filesize": (folder / name).stat().st_size}
        for name, samples in (("s-1.tar", 4), ("s-0.tar", 3), ("deep/s-2.tar", 5))
    ]
    about = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed, "name": "s"} | change
    (folder / "index.json").write_text(json.dumps(about, indent=2))
    return folder / "index.json"


def energon(folder: Path, split: str = SPLIT, **change: Any) -> Path:
    """Write what `energon prepare` writes."""
    meta = folder / ".nv-meta"
    meta.mkdir(exist_ok=True)
    counts = {"s-0.tar": 3, "s-1.tar": 4, "deep/s-2.tar": 5}
    (meta / ".info.json").write_text(json.dumps({"energon_version": "7.4.1", "shard_counts": counts} | change))
    (meta / "split.yaml").write_text(split)
    return folder


def names(dataset: Any) -> list[str]:
    return [Path(path).name for path in dataset.shards]


def test_a_list_of_wids_opens_its_shards_in_its_order(shards: Path) -> None:
    """Take shards and their order from the JSON file, whoever opens it."""
    path = wids(shards)
    dataset = WebDataset(path)
    assert (names(dataset), dataset.shard_lengths) == (["s-1.tar", "s-0.tar", "s-2.tar"], [4, 3, 5])
    assert dataset[4] == {"__key__": "s-0/0", "txt": "hi"}
    assert names(open_shards(path)) == names(dataset)
    assert names(open_shards(shards)) == ["s-0.tar", "s-1.tar"]
    assert names(WebDataset(wids(shards, shardlist=[{"url": "s-0.tar"}]))) == ["s-0.tar"]


def test_a_folder_of_energon_opens_its_shards_and_its_splits(shards: Path) -> None:
    """Take shards from `.info.json`, and those of a split from `split.yaml` or `split.json`."""
    energon(shards)
    assert WebDataset(shards).shard_lengths == [3, 4, 5]
    assert names(open_shards(shards)) == ["s-0.tar", "s-1.tar", "s-2.tar"]
    assert names(WebDataset(shards, split="train")) == ["s-0.tar", "s-1.tar"]
    assert names(open_shards(shards, split="val")) == ["s-2.tar"]
    energon(shards, SPLIT.replace("exclude: []", "exclude:\n- s-1.tar"))
    assert names(WebDataset(shards, split="train")) == ["s-0.tar"]
    (shards / ".nv-meta" / "split.yaml").unlink()
    (shards / ".nv-meta" / "split.json").write_text(json.dumps({"split_parts": {"train": ["s-{1..1}.tar"]}}))
    assert names(WebDataset(shards, split="train")) == ["s-1.tar"]


@pytest.mark.parametrize("samples", [2, 4])
def test_a_shard_with_other_samples_than_listed_is_an_error(shards: Path, samples: int) -> None:
    """Name the shard that lacks samples, or has more: an archive that was cut between members looks whole."""
    wids_list, prepared = wids(shards), energon(shards)
    write(shards / "s-0.tar", samples)
    for opened in (wids_list, prepared):
        with pytest.raises(BadFile, match=rf"s-0\.tar: it has {samples} samples; expected 3, as .*json says"):
            WebDataset(opened)
    wids(shards, shardlist=[{"url": "s-0.tar", "nsamples": samples, "filesize": 1}])
    with pytest.raises(BadFile, match=r"s-0\.tar: it has [\d,]+ bytes; expected 1, as"):
        WebDataset(wids_list)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wids_version": 2}, "it has the wids_version 2"),
        ({"datasets": [{"source_url": "a.json"}]}, "it is a list of several data sets"),
        ({"shardlist": []}, "it names no shards"),
        ({"shardlist": [{}]}, "'url' is 'None'"),
        ({"shardlist": {"url": 1}}, "'shardlist' is"),
        ({"shardlist": [{"url": "https://host/a.tar"}]}, "it names the shard 'https://host/a.tar'"),
        ({"shardlist": [{"url": "/etc/passwd"}]}, "it names the shard '/etc/passwd'"),
        ({"shardlist": [{"url": "../a.tar"}]}, "the shard '../a.tar' is outside of the folder"),
        ({"shardlist": [{"url": "s-0.tar", "nsamples": "3"}]}, "'nsamples' is '3'"),
    ],
)
def test_a_damaged_list_of_wids_is_an_error(shards: Path, change: dict[str, Any], words: str) -> None:
    """Say what is wrong with the list; open nothing outside of its folder, and download nothing."""
    with pytest.raises(BadFile, match=words):
        WebDataset(wids(shards, **change))
    wids(shards, shardlist=[{"url": "s-9.tar"}])
    with pytest.raises(MissingFile):
        WebDataset(shards / "index.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shard_counts": None}, "'shard_counts' is 'None'"),
        ({"shard_counts": {}}, "it names no shards"),
        ({"shard_counts": {"s-0.tar": -1}}, "'shard_counts' has a value that is no count"),
        ({"shard_counts": {"../s-0.tar": 1}}, "is outside of the folder"),
    ],
)
def test_a_damaged_list_of_energon_is_an_error(shards: Path, change: dict[str, Any], words: str) -> None:
    """Say what is wrong with `.info.json`."""
    with pytest.raises(BadFile, match=words):
        WebDataset(energon(shards, **change))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("split_parts: {train: [a.tar]}\n", "line 1 cannot be read: 'split_parts: {train"),
        ("split_parts:\n  train: &a\n  - x\n", "line 2 cannot be read"),
        ("- s-0.tar\n", "line 1 cannot be read"),
        ("split_parts:\n  train:\n  - s-7.tar\n", "it has no shard 's-7.tar'"),
        ("split_parts:\n  train:\n  - s-0.tar\nexclude:\n- s-0.tar/2\n", "it excludes single samples: 's-0.tar/2'"),
        ("split_parts:\n  train: []\n", "it names no shards"),
    ],
)
def test_a_split_that_cannot_be_read_is_an_error(shards: Path, split: str, words: str) -> None:
    """Refuse other YAML than Energon writes, rather than guess."""
    with pytest.raises(BadFile, match=words):
        WebDataset(energon(shards, split), split="train")


def test_a_split_that_is_not_there_is_an_error(shards: Path) -> None:
    """Name the splits that there are, if any."""
    with pytest.raises(ArgumentError, match=r"split is 'train', and there are no splits"):
        WebDataset(shards, split="train")
    with pytest.raises(ArgumentError, match=r"index\.json has no splits"):
        WebDataset(wids(shards), split="train")
    with pytest.raises(ArgumentError, match=r"has the splits 'train', 'val', 'test'"):
        WebDataset(energon(shards), split="dev")
