"""Scripts that nobody changed: under ``python`` and under ``python -m headrace.torch``, with one result."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = textwrap.dedent("""
    import atexit, os, pickle, sys
    import helper
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Squares(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return torch.tensor(index * index)

    class Repeated(DataLoader):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            self._DataLoader__initialized = False
            self.batch_sampler = helper.Twice(self.batch_sampler)
            self._DataLoader__initialized = True

    if __name__ == "__main__":
        print(sys.argv, sys.path[0], __file__, __name__, __package__, __spec__ and __spec__.name)
        print(sys.modules["__main__"].Squares is Squares, type(pickle.loads(pickle.dumps(Squares()))) is Squares)
        atexit.register(lambda: print("at exit:", sys.modules["__main__"].Squares.__name__))
        for method in ("fork", "forkserver", "spawn"):
            loader = Repeated(Squares(), 2, num_workers=2, multiprocessing_context=method)
            print(isinstance(loader, DataLoader), len(loader), [batch.tolist() for batch in loader])
        print("ours:", any(base.__module__.startswith("headrace") for base in type(loader).__mro__))
        sys.exit(int(sys.argv[2]))
""")

HELPER = textwrap.dedent("""
    class Twice:
        def __init__(self, sampler):
            self.sampler = sampler

        def __len__(self):
            return 2 * len(self.sampler)

        def __iter__(self):
            yield from self.sampler
            yield from self.sampler
""")

FAILING = textwrap.dedent("""
    from torch.utils.data import DataLoader

    class Short:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return [0, 1][index]

    def main():
        try:
            list(DataLoader(Short()))
        except IndexError:
            raise SystemError("it ends early") from None

    main()
""")


def run(how: list[str], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *how, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def both(arguments: list[str], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    return [run(how, arguments, folder) for how in ([], ["-m", "headrace.torch"])]


@pytest.mark.parametrize("arguments", [["code/train.py", "--native", "7"], ["-m", "code.train", "-m", "7"]], ids=str)
def test_a_script_does_what_it_does_under_python(arguments: list[str], tmp_path: Path) -> None:
    """See the same arguments, path and main module, start workers in every way, and end with the same status."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "__init__.py").write_text("")
    (folder / "helper.py" if "-m" not in arguments else tmp_path / "helper.py").write_text(HELPER)
    theirs, ours = both(arguments, tmp_path)
    assert (theirs.returncode, ours.returncode) == (7, 7), ours.stderr
    expected, found = theirs.stdout.splitlines(), ours.stdout.splitlines()
    assert "[[0, 1], [4, 9], [16], [0, 1], [4, 9], [16]]" in found[2]
    assert (expected.pop(-2), found.pop(-2)) == ("ours: False", "ours: True")
    assert found == expected
    assert "Traceback" not in ours.stderr


@pytest.mark.parametrize("text", [FAILING, "x = (\n", "import nothing_like_it\n"], ids=["error", "syntax", "import"])
def test_an_error_is_shown_as_under_python(text: str, tmp_path: Path) -> None:
    """Show the script's frames, and none of ours."""
    (tmp_path / "failing.py").write_text(text)
    theirs, ours = both(["failing.py"], tmp_path)
    assert (theirs.returncode, ours.returncode) == (1, 1)
    assert ours.stderr == theirs.stderr


def test_what_cannot_be_run_is_said_as_python_says_it(tmp_path: Path) -> None:
    """End with Python's status where there is no such file or module."""
    for arguments in (["nothing.py"], ["-m", "nothing"], ["-m", "nothing.at_all"]):
        theirs, ours = both(arguments, tmp_path)
        assert ours.returncode == theirs.returncode
        assert re.search(r"can't open file|No module named", ours.stderr)
        assert "Traceback" not in ours.stderr


def test_the_command_explains_itself(tmp_path: Path) -> None:
    """Print its options; refuse others before the script, and leave those after it alone."""
    said = run(["-m", "headrace.torch"], ["--help"], tmp_path)
    assert said.returncode == 0
    assert all(option in said.stdout for option in ("--native", "--explain", "-m MODULE"))
    for arguments in ([], ["--explain"], ["--nonsense", "train.py"], ["-m"]):
        refused = run(["-m", "headrace.torch"], arguments, tmp_path)
        assert refused.returncode == 2
        assert refused.stderr.startswith("usage: python -m headrace.torch")


def test_options_reach_every_loader(tmp_path: Path) -> None:
    """Give ``native`` to each loader, and say how each reads, on stderr."""
    script = "from torch.utils.data import DataLoader\nprint(DataLoader(range(4)).native)\n"
    (tmp_path / "script.py").write_text(script)
    ran = run(["-W", "ignore", "-m", "headrace.torch"], ["--native", "--explain", "script.py"], tmp_path)
    assert ran.stdout == "True\n"
    assert ran.stderr.startswith("headrace: DataLoader(<range of 4")
