"""The reader of large JSON files: what the whole file says, item by item, whatever the size of its blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from headrace.errors import BadFile
from headrace.formats import json_items

if TYPE_CHECKING:
    from pathlib import Path

CONTENT: dict[str, Any] = {
    "info": {"year": 2017, "text": 'a "quoted" [bracket'},
    "images": [{"id": 1, "name": "käse.jpg"}, {"id": 2, "name": "日本"}, {"deep": [[1, [2]], {"a": None}]}],
    "empty": [],
    "other": [1, 23, "x", [4]],
    "numbers": [1, -2.5, 1e3, True],
    "last": 12,
}


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}])
def test_items_are_those_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, layout: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_items, "BLOCK", block)
    file = tmp_path / "a.json"
    data = json.dumps(CONTENT, **layout).encode()
    file.write_bytes(data)
    found = list(json_items.items(str(file), frozenset({"images", "numbers"})))
    assert [(item.key, item.value) for item in found] == [
        *(("images", value) for value in CONTENT["images"]),
        *(("numbers", value) for value in CONTENT["numbers"]),
    ]
    for item in found:
        assert json_items.parsed(data[item.offset : item.offset + item.length]) == item.value


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b'{"a"', b'{"a":', b'{"a": 1', b'{"a": [1', b'{"a": [1,]}', b'{"a": 1,}', b'{"a": 1} 2',
        b"{1: 2}",
        b'{"a": NaN}', b'{"a": [Infinity]}', b'{"a": "\xff"}', b'{"a" 1}', b'{"a": [1 2]}', b'{"a": ' + b"[" * 100_000,
        b'{"a": [' + b"9" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_bad_file_that_names_the_byte(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text)
    with pytest.raises(BadFile, match=r"byte \d+: ") as caught:
        list(json_items.items(str(file), frozenset({"a"})))
    assert caught.value.path == str(file)


def test_an_item_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "BLOCK", 64)
    monkeypatch.setattr(json_items, "MOST_OF_AN_ITEM", 1000)
    file = tmp_path / "a.json"
    file.write_bytes(b'{"a": ["' + b"x" * 100_000)
    with pytest.raises(BadFile, match="does not end"):
        list(json_items.items(str(file), frozenset({"a"})))
