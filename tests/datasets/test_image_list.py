"""List files in the shapes that they come in, and errors that name the line."""

from __future__ import annotations

import codecs
import csv
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.image_files import plant

from headrace import CenterCrop, DataLoader
from headrace.datasets.lists import ImageList
from headrace.errors import ArgumentError, ListFileError, MissingFile, UnreadableFile


def write(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def pairs(dataset: ImageList) -> list[tuple[str, int]]:
    return list(zip(dataset.paths, dataset.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg 0\nb.jpg 1\n", [("a.jpg", 0), ("b.jpg", 1)]),
        ("a.jpg\t0\nb.jpg\t1", [("a.jpg", 0), ("b.jpg", 1)]),
        ("a.jpg,0\nb.jpg, -1\n", [("a.jpg", 0), ("b.jpg", -1)]),
        ("a.jpg   +7\r\n\r\n  \r\nb.jpg 007\r\n", [("a.jpg", 7), ("b.jpg", 7)]),
        ("\n\na.jpg 0\rb.jpg 1\r", [("a.jpg", 0), ("b.jpg", 1)]),
        ("my cats/a 1.jpg 0\nmy cats/b  2.jpg \t 1\n", [("my cats/a 1.jpg", 0), ("my cats/b  2.jpg", 1)]),
        ("my cats/a 1.jpg 0\nmy cats/b  2.jpg   1\n", [("my cats/a 1.jpg", 0), ("my cats/b  2.jpg", 1)]),
        ("my cats/a 1.jpg\t0\n", [("my cats/a 1.jpg", 0)]),
        ("my cats/a 1.jpg,0\n", [("my cats/a 1.jpg", 0)]),
        ('"my cats/a.jpg" 0\n', [("my cats/a.jpg", 0)]),
        ("cats, dogs/a.jpg 3\nb.jpg 4\n", [("cats, dogs/a.jpg", 3), ("b.jpg", 4)]),
        ('"cats, dogs/a.jpg",3\n"say ""b"".jpg",4\n', [("cats, dogs/a.jpg", 3), ('say "b".jpg', 4)]),
        ("a,b.jpg\t3\n", [("a,b.jpg", 3)]),
        ("ünï/çödé.jpg 0\n", [("ünï/çödé.jpg", 0)]),
        ("/abs/a.jpg 0\n../b.jpg 1\n", [("/abs/a.jpg", 0), ("../b.jpg", 1)]),
        ("cats\\a 1.jpg 0\nC:\\dogs\\b.jpg 1", [("cats/a 1.jpg", 0), ("C:/dogs/b.jpg", 1)]),
    ],
)
def test_lines_are_a_path_and_a_label(tmp_path: Path, text: str, expected: list[tuple[str, int]]) -> None:
    """Read lines by white space, tab or comma, whatever ends them, with spaces and backslashes in paths."""
    dataset = ImageList(write(tmp_path, text))
    assert pairs(dataset) == expected
    assert dataset.classes == []
    assert dataset.labels.dtype == np.int64


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path: Path, mark: bytes) -> None:
    """Read UTF-8 with and without a mark."""
    assert pairs(ImageList(write(tmp_path, mark + "é.jpg 1\n".encode()))) == [("é.jpg", 1)]
    named = ImageList(write(tmp_path, mark + b"file,label\na.jpg,1\n"), columns=("file", "label"))
    assert pairs(named) == [("a.jpg", 1)]


def test_another_encoding_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Refuse UTF-16, which some programs call Unicode text."""
    with pytest.raises(ListFileError, match="text in UTF-16; expected UTF-8"):
        ImageList(write(tmp_path, "a.jpg 1\n".encode("utf-16")))


def test_bytes_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    """Find a file whose name is in another encoding by the same bytes in the list."""
    plant(tmp_path, [os.fsdecode(b"caf\xe9.jpg")])
    dataset = ImageList(write(tmp_path, b"caf\xe9.jpg 4\n"))
    assert dataset[0][0].shape == (8, 8, 3)


def test_paths_begin_in_the_folder_of_the_list_or_in_the_root(tmp_path: Path) -> None:
    """Read images beside the list file, below another root, or by absolute paths."""
    plant(tmp_path, ["lists/near.jpg", "data/far.jpg"])
    near = write(tmp_path / "lists", "near.jpg 1\n../data/far.jpg 2\n")
    assert [label for _, label in ImageList(near)] == [1, 2]
    far = write(tmp_path / "lists", f"far.jpg 3\n{tmp_path}/lists/near.jpg 4\n")
    dataset = ImageList(str(far), tmp_path / "data")
    assert [label for _, label in dataset] == [3, 4]
    assert dataset.root == str(tmp_path / "data")
    assert dataset.path(1) == f"{tmp_path}/lists/near.jpg"


def test_a_backslash_is_kept_where_the_file_has_one(tmp_path: Path) -> None:
    """Take the path as it is written, if that is there; the first with a backslash decides for all."""
    plant(tmp_path, [r"a\b.jpg", "c/d.jpg"])
    assert ImageList(write(tmp_path, "a\\b.jpg 1\na\\b.jpg 2\n"))[1][1] == 2
    assert ImageList(write(tmp_path, "c\\d.jpg 1\n"))[0][1] == 1


def test_a_header_is_passed_over_on_request(tmp_path: Path) -> None:
    """Skip the first line that is not blank, with any separator."""
    for text in ("\nfile label\na.jpg 1\n", "file,label\na.jpg,1\n", "file\tlabel\na.jpg\t1\n"):
        assert pairs(ImageList(write(tmp_path, text), header=True)) == [("a.jpg", 1)]


def test_a_header_left_in_is_noticed(tmp_path: Path) -> None:
    """Refuse a first label that is a word where all others are integers, rather than read all as names."""
    with pytest.raises(ListFileError, match=r"line 1: .* seems to be a header.*header=True"):
        ImageList(write(tmp_path, "file,label\na.jpg,1\nb.jpg,2\n"))


TABLE = "id,kind,file,score\n1,cat,a.jpg,0.5\n2,dog,b.jpg,0.25\n3,cat,c.jpg,1.5\n"


@pytest.mark.parametrize("columns", [("file", "kind"), ["file", 1], (2, "kind"), (2, 1)])
def test_columns_are_chosen_by_name_or_number(tmp_path: Path, columns: tuple[str | int, str | int]) -> None:
    """Take two columns of many, in any order; names imply a header."""
    header = not any(isinstance(column, str) for column in columns)
    dataset = ImageList(write(tmp_path, TABLE), columns=columns, header=header)
    assert pairs(dataset) == [("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 0)]
    assert dataset.classes == ["cat", "dog"]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1}


def test_columns_of_other_separators(tmp_path: Path) -> None:
    """Read tabs as found, and semicolons and spaces as told."""
    assert pairs(ImageList(write(tmp_path, TABLE.replace(",", "\t")), columns=("file", "id")))[2] == ("c.jpg", 3)
    semicolons = write(tmp_path, TABLE.replace(",", ";"))
    assert pairs(ImageList(semicolons, columns=("file", "id"), sep=";"))[2] == ("c.jpg", 3)
    spaces = write(tmp_path, '1  "a b.jpg"\n2  c.jpg\n')
    assert pairs(ImageList(spaces, columns=(1, 0))) == [("a b.jpg", 1), ("c.jpg", 2)]


def test_a_quoted_field_may_run_over_lines(tmp_path: Path) -> None:
    """Count the lines of the file, not the rows, when a row is wrong."""
    text = 'file,note,label\n"a.jpg","two\nlines",1\nb.jpg,one,\n'
    with pytest.raises(
        ListFileError, match=r"line 4: 'b\.jpg,one,'; expected a path and a label, neither of them empty"
    ):
        ImageList(write(tmp_path, text), columns=("file", "label"))
    assert ImageList(write(tmp_path, text), columns=("file", "note")).classes == ["one", "two\nlines"]


@pytest.mark.parametrize("separator", [" ", ",", "\t", "|"])
def test_a_separator_can_be_said(tmp_path: Path, separator: str) -> None:
    """Split by what the user says, whatever else is in the line."""
    file = write(tmp_path, f"a;b.jpg{separator}1\n")
    assert pairs(ImageList(file, sep=separator)) == [("a;b.jpg", 1)]


def test_names_become_classes_sorted(tmp_path: Path) -> None:
    """Number the names in their order, and take integers for names too where the first label is one."""
    dataset = ImageList(write(tmp_path, "a.jpg dog\nb.jpg 2\nc.jpg cat\nd.jpg dog\ne.jpg 10\n"))
    assert dataset.classes == ["10", "2", "cat", "dog"]
    assert dataset.labels.tolist() == [3, 1, 2, 3, 0]
    spaced = ImageList(write(tmp_path, "a.jpg,golden retriever\nb.jpg,cat\n"))
    assert spaced.classes == ["cat", "golden retriever"]
    numbers = ImageList(write(tmp_path, "a.jpg 30\nb.jpg 4\n"), labels="names")
    assert (numbers.classes, numbers.labels.tolist()) == (["30", "4"], [0, 1])


@pytest.mark.parametrize("odd", ["nan", "NaN", "cat", "1.5", "None", "0x1"])
@pytest.mark.parametrize("line", [2, 7, 13])
def test_one_odd_label_is_an_error_and_renumbers_no_other(tmp_path: Path, odd: str, line: int) -> None:
    """Name the line whose label is of another kind than the first, wherever it is."""
    lines = [f"{number}.png,{number}\n" for number in range(12)]
    lines.insert(line - 1, f"x.png,{odd}\n")
    with pytest.raises(ListFileError, match=rf"line {line}: '{odd}'; expected an integer, since .* line 1 is '0'"):
        ImageList(write(tmp_path, "".join(lines)))


def test_fractions_are_labels_too(tmp_path: Path) -> None:
    """Give float64 where the first label is a fraction, or where that is asked for."""
    dataset = ImageList(write(tmp_path, "a.jpg 0.5\nb.jpg 2\nc.jpg -1e3\n"))
    assert dataset.labels.dtype == np.float64
    assert dataset.labels.tolist() == [0.5, 2.0, -1000.0]
    assert ImageList(write(tmp_path, "a.jpg 1\nb.jpg 2.5\n"), labels="float").labels.tolist() == [1.0, 2.5]
    for odd in ("nan", "inf", "1e999", "cat"):
        with pytest.raises(ListFileError, match=rf"line 2: '{odd}'; expected a finite number"):
            ImageList(write(tmp_path, f"a.jpg 0.5\nb.jpg {odd}\n"))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a.jpg 0 1 0\nmy b.jpg 1 1 0\n", (0, 1, 2, 3)),
        ("a.jpg,0,1,0\nmy b.jpg,1,1,0\n", (0, 1, 2, 3)),
        ("file;x;y;z\na.jpg;0;1;0\nmy b.jpg;1;1;0\n", ("file", "x", "y", "z")),
        ("0 1 0 a.jpg\n1 1 0 my b.jpg\n", (3, 0, 1, 2)),
    ],
)
def test_several_label_columns_give_rows(tmp_path: Path, text: str, columns: tuple[int, ...]) -> None:
    """Read multi-label and regression lists: a row of numbers for each image."""
    dataset = ImageList(write(tmp_path, text), columns=columns)
    assert list(dataset.paths) == ["a.jpg", "my b.jpg"]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [[0, 1, 0], [1, 1, 0]]
    fractions = ImageList(write(tmp_path, text.replace("1", "1.5")), columns=columns, labels="float")
    assert fractions.labels.tolist() == [[0, 1.5, 0], [1.5, 1.5, 0]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own", [False, True])
def test_fractions_and_rows_come_in_batches(tmp_path: Path, workers: int, *, own: bool) -> None:
    """Collate them by the native extension as sample by sample."""
    plant(tmp_path, ["a.png", "b.png"])
    crop = (lambda sample: sample,) if own else ()
    one = ImageList(write(tmp_path, "a.png 0.5\nb.png 2\n")).map(CenterCrop(8), *crop)
    images, labels = next(iter(DataLoader(one, 2, num_workers=workers)))
    assert (images.shape, labels.dtype, labels.tolist()) == ((2, 8, 8, 3), np.float64, [0.5, 2.0])
    rows = ImageList(write(tmp_path, "a.png 1 2\nb.png 3 4\n"), columns=(0, 1, 2)).map(CenterCrop(8), *crop)
    _, labels = next(iter(DataLoader(rows, 2, num_workers=workers)))
    assert (labels.dtype, labels.tolist()) == (np.int64, [[1, 2], [3, 4]])


def test_paths_with_spaces_are_read_on_either_side(tmp_path: Path) -> None:
    """Split at a semicolon or a bar too, and take the rest of the line for a path that comes last."""
    for text, columns in (
        ("my cat.jpg;3\n", None),
        ("my cat.jpg|3\n", None),
        ("my cat.jpg 3\n", None),
        ("3 my cat.jpg\n", (1, 0)),
        ("my cat.jpg 3 other words\n", (0, 1)),
        ("x 3 my cat.jpg\n", (2, 1)),
    ):
        assert pairs(ImageList(write(tmp_path, text), columns=columns)) == [("my cat.jpg", 3)], text


def test_a_header_above_names_is_noticed(tmp_path: Path) -> None:
    """Refuse a line of words above lines of images."""
    text = "file,kind\na.jpg,cat\nb.jpg,dog\n"
    with pytest.raises(ListFileError, match=r"line 1: the path is 'file' and the label 'kind'.*header=True"):
        ImageList(write(tmp_path, text))
    assert ImageList(write(tmp_path, text), header=True).classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.jpg 0\nb.jpg\n", r"line 2: 'b\.jpg': 1 fields; expected a path and a label"),
        ("a.jpg,0,1\n", r"line 1: 'a\.jpg,0,1': 3 fields; .* separated by commas.* columns=\(0, 1\)"),
        ("a.jpg\t0\n\nb.jpg 1\n", r"line 3: 'b\.jpg 1': 1 fields; .* separated by tabs"),
        ("a.jpg,0\nb.jpg,\n", r"line 2: 'b\.jpg,'; expected a path and a label, neither of them empty"),
        ("a.jpg,0\n,1\n", "line 2: ',1'; expected a path and a label"),
        ("a.jpg 1\nb.jpg 2.0\n", r"line 2: '2\.0'; expected an integer"),
        ("a.jpg 1 2\n", r"line 1: .*the path 'a\.jpg 1' has words after .*columns=\(0, 1, 2\)"),
        ("a.jpg;1,2\n", "line 1: '1,2': several numbers in one field"),
        ("a.jpg " + "9" * 5000 + "\n", "expected an integer of 64 bits"),
        ("a.jpg 99999999999999999999\n", "line 1: '99999999999999999999'; expected an integer of 64 bits"),
        ("0 a.jpg\n", r"'a\.jpg' looks like a path; expected a label.* columns=\(1, 0\)"),
        ("my cat.jpg\nmy dog.jpg\n", r"'cat\.jpg' looks like a path; expected a label.* ImageFiles"),
        ('"a.jpg,0\nb.jpg,1\n', "line 2: cannot be parsed as CSV: unexpected end of data"),
        ('"a"b.jpg,0\n', "line 1: cannot be parsed as CSV"),
        ("", "no lines; expected at least one line `path label`"),
        ("\n \r\n", "no lines"),
        ("x" * 500 + "\n", r"line 1: 'x{80}…': 1 fields"),
    ],
)
def test_a_line_that_cannot_be_made_out_is_named(tmp_path: Path, text: str, found: str) -> None:
    """Name the file, the line, what it says, what was expected and what to do."""
    file = write(tmp_path, text)
    with pytest.raises(ListFileError, match=found) as caught:
        ImageList(file)
    assert str(caught.value).startswith(str(file))


def test_a_column_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    """Say what the header has, or how many fields a line has."""
    with pytest.raises(ListFileError, match="no column 'path' in its header; expected one of 'id', 'kind', 'file'"):
        ImageList(write(tmp_path, TABLE), columns=("path", "kind"))
    with pytest.raises(ListFileError, match=r"line 1: .* 4 fields; expected columns 2 and 4"):
        ImageList(write(tmp_path, TABLE), columns=(2, 4))
    with pytest.raises(ListFileError, match="expected one of nothing"):
        ImageList(write(tmp_path, ""), columns=("path", "kind"))
    with pytest.raises(ListFileError, match="no lines"):
        ImageList(write(tmp_path, "file,label\n"), columns=("file", "label"))


@pytest.mark.parametrize("separator", ["", ", ", '"', "\n", 3])
def test_a_separator_that_is_none_is_refused(tmp_path: Path, separator: str) -> None:
    """Take one character or None."""
    with pytest.raises(ArgumentError, match="sep must be one character"):
        ImageList(write(tmp_path, "a.jpg 1\n"), sep=separator)


@pytest.mark.parametrize("columns", [(), (0,), "ab", (0, -1), (0, 1.5), (True, 0), 3])
def test_columns_that_are_none_are_refused(tmp_path: Path, columns: tuple[int, int]) -> None:
    """Take two or more, by name or by number from 0."""
    with pytest.raises(ArgumentError, match="columns must be two or more"):
        ImageList(write(tmp_path, "a.jpg 1\n"), columns=columns)


def test_a_list_file_that_cannot_be_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    """Tell a missing one from a folder."""
    with pytest.raises(MissingFile, match=r"gone\.txt: cannot be opened: No such file"):
        ImageList(tmp_path / "gone.txt")
    with pytest.raises(UnreadableFile, match="cannot be opened: it is a folder"):
        ImageList(tmp_path)


def test_only_a_regular_file_of_text_is_a_list(tmp_path: Path) -> None:
    """Refuse a device, a pipe that nobody writes to, a file of the kernel's and one of zeros, before reading them."""
    os.mkfifo(tmp_path / "pipe")
    for odd in (Path("/dev/zero"), Path("/dev/null"), tmp_path / "pipe", Path("/proc/self/maps")):
        with pytest.raises(UnreadableFile, match=r"cannot be opened: it is .*; expected a list file"):
            ImageList(odd)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ListFileError, match="zero bytes"):
        ImageList(tmp_path / "sparse")


def test_a_missing_image_names_index_and_path(tmp_path: Path) -> None:
    """Look for no image before it is asked for, and then say which was not there."""
    dataset = ImageList(write(tmp_path, "a.jpg 1\nb.jpg 2\n"))
    with pytest.raises(MissingFile, match=rf"^sample 1 \({tmp_path}/b\.jpg\): there is no such file"):
        dataset[1]


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="\\"), min_size=1).filter(
    lambda name: name == name.strip()
)


@given(st.lists(st.tuples(NAMES, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8))
def test_what_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]) -> None:
    """Read any path and label that Python's own csv module writes."""
    file = tmp_path_factory.mktemp("csv") / "list.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    assert pairs(ImageList(file, columns=("path", "label"))) == rows


def test_a_long_list_is_never_held_as_strings(tmp_path: Path) -> None:
    """Read 100,000 lines in little more memory than the packed result."""
    count = 100_000
    file = write(tmp_path, "".join(f"train/{number:07d}.jpg {number % 10}\n" for number in range(count)))
    tracemalloc.start()
    try:
        dataset = ImageList(file)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dataset.labels[-1] == 9
    width = len("train/0000000.jpg")
    assert held < count * (width + 4 + 8) * 1.1
    assert most < count * (width + 8 + 8) * 2.2
