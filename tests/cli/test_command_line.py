"""What all commands have in common: help, errors, Ctrl-C, pipes and terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from tests.cli.conftest import COMMAND, PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

COMMANDS = ["show", "bench", "check", "index", "convert", "pack", "diff", "demo", "doctor", "replay", "cache", "top"]


def test_the_version_is_the_packages(run: Run) -> None:
    """Print the name and the version."""
    assert run("--version").stdout == f"headrace {headrace.__version__}\n"


def test_the_console_script_is_the_same_program() -> None:
    """Point the installed command at the main function that ``python -m headrace`` runs."""
    from importlib.metadata import entry_points

    from headrace.__main__ import main

    (script,) = entry_points(group="console_scripts", name="headrace")
    assert script.load() is main


def test_the_help_lists_every_command(run: Run) -> None:
    """Name all the commands in the help, and say how to start."""
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "headrace demo" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_has_an_example(run: Run, command: str) -> None:
    """Show how a command is typed."""
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"Example: headrace {command}" in done.stdout


@pytest.mark.parametrize("library", ["click", "tqdm"])
def test_a_missing_library_is_reported_in_one_line(library: str) -> None:
    """Say which extra installs what the command line needs, and exit with 2."""
    done = _without([library], "bench", "photos")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"this command needs {library}, which is not installed: pip install 'headrace[cli]'\n"


def _without(libraries: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where some libraries are not installed."""
    hidden = "; ".join(f"sys.modules[{library!r}] = None" for library in libraries)
    script = f"import sys; {hidden}; from headrace.__main__ import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_doctor_version_and_help_need_no_extra() -> None:
    """Run them where NumPy and cloudpickle alone are installed, with the same result as JSON."""
    libraries = ["click", "tqdm", "PIL", "simplejpeg", "cv2"]
    assert _without(libraries, "--version").stdout == f"headrace {headrace.__version__}\n"
    usage = _without(libraries, "--help")
    assert usage.returncode == 0
    assert all(f"\n  {name} " in usage.stdout for name in COMMANDS)
    done = _without(libraries, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"headrace {headrace.__version__}" in " ".join(done.stdout.split())
    found = json.loads(_without(libraries, "doctor", "--json").stdout)
    assert (found["command"], found["status"], found["error"]) == ("doctor", 0, None)
    assert json.loads(_without(libraries, "check", "photos", "--json").stdout)["status"] == 2
    script = "import sys; sys.modules['click'] = None; from headrace.__main__ import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", script, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    with_target = _without(libraries, "doctor", "train.py:dataset")
    assert (with_target.returncode, with_target.stdout) == (2, "")


@pytest.mark.parametrize("command", ["show", "bench", "check"])
def test_a_path_that_is_not_there_is_one_line_and_exit_status_2(run: Run, command: str) -> None:
    """Name the path and what is wrong with it, without a traceback."""
    done = run(command, "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "headrace: nowhere: no such file or folder; expected a folder, a list file or an image\n"


def test_a_folder_without_images_says_what_counts_as_one(run: Run, tmp_path: Path) -> None:
    """Name the endings that were looked for."""
    (tmp_path / "empty" / "notes").mkdir(parents=True)
    (tmp_path / "empty" / "notes" / "a.md").write_text("hello")
    done = run("check", "empty")
    assert done.returncode == 2
    assert done.stderr.startswith("headrace: empty: no image in this folder; ")
    assert ".jpeg" in done.stderr


def test_a_file_that_is_no_image_says_what_would_do(run: Run, tmp_path: Path) -> None:
    """Refuse a file whose name and bytes are neither a list's nor an image's."""
    (tmp_path / "notes.md").write_text("hello")
    done = run("show", "notes.md")
    assert done.returncode == 2
    assert done.stderr == (
        "headrace: notes.md: not an image; expected a folder of images, "
        "a list file (.txt .csv .tsv .lst), or an image\n"
    )


def test_options_of_list_files_are_refused_for_a_folder(run: Run, photos: Path) -> None:
    """Tell an option that would be ignored."""
    done = run("check", photos, "--columns", "0,1")
    assert done.returncode == 2
    assert "expected a list file (.txt .csv .tsv .lst); leave these options out" in done.stderr


def test_a_list_file_that_cannot_be_read_names_the_line(run: Run, tmp_path: Path) -> None:
    """Show the library's own message as one line."""
    (tmp_path / "bad.csv").write_text("a.jpg,0\nb.jpg\n")
    done = run("check", "bad.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("headrace: bad.csv, line 2: ")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(photos: Path, tmp_path: Path) -> None:
    """Write the whole story before the line; keep the exit status and the JSON document."""
    command = ["show", str(photos), "--json", "--output", str(tmp_path / "none" / "a.png")]
    plain = subprocess.run([*COMMAND, *command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (plain.returncode, plain.stderr) == (3, "")
    done = subprocess.run([*COMMAND, "--debug", *command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    assert done.stderr.startswith("Traceback")
    assert "FileNotFoundError" in done.stderr


def test_a_bug_of_a_command_has_a_traceback_and_status_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never end with Python's own status 1, which says that a sample is bad."""
    from headrace.cli import app, doctor

    def fails() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "found_here", fails)
    monkeypatch.setattr(sys, "argv", ["headrace", "doctor", "--json"])
    assert app.run() == 3
    written = capsys.readouterr()
    document = json.loads(written.out)
    assert (document["status"], document["error"]["type"]) == (3, "ZeroDivisionError")
    assert written.err.startswith("Traceback")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "LIST"),
        ("check", "LIST", "--jobs", "7"),
        ("show", "LIST", "--batch-size", "100000", "--size", "32"),
        ("bench", "LIST", "--workers", "2"),
        ("bench", "LIST", "--workers", "0"),
        ("demo", "--images", "300000"),
        ("demo", "--images", "12", "--epochs", "300000", "--workers", "2"),
    ],
    ids=" ".join,
)
def test_ctrl_c_ends_a_command_at_once_and_cleanly(
    start: Start, endless: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Exit with 130 and one word, whatever was under way, and leave no half-made folder."""
    process = start(*(endless if argument == "LIST" else argument for argument in arguments))
    assert process.stdout is not None
    while line := process.stdout.readline():  # up to the line after which the work goes on for long
        if any(mark in line for mark in ("gone.jpg", "RandomResizedCrop", "making 300,000", "epoch 0")):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert errors == "interrupted\n"
    assert process.returncode == 130
    assert not list(tmp_path.glob("**/*.part"))


def test_a_reader_that_has_seen_enough_gets_no_traceback(start: Start, tmp_path: Path) -> None:
    """Stop quietly, with a shell's status for a broken pipe, when the reader has gone: ``headrace check … | head``."""
    bad = tmp_path / "bad.txt"
    bad.write_text("gone.jpg 0\n" * 20_000)
    process = start("check", bad)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{tmp_path}/gone.jpg: ")
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_SECONDS) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_output_that_is_not_a_terminals_has_no_control_characters(run: Run, photos: Path) -> None:
    """Write plain lines, and no progress bar, where nobody watches."""
    for arguments in (("check",), ("bench", "--workers", "1"), ("show",)):
        done = run(arguments[0], photos, *arguments[1:])
        assert done.returncode == 0
        assert all(character.isprintable() or character == "\n" for character in done.stdout + done.stderr)


def test_a_terminal_gets_a_progress_bar_that_goes_away(photos: Path, tmp_path: Path) -> None:
    """Draw on a terminal, whose last line is the summary alone."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with subprocess.Popen([*COMMAND, "check", str(photos)], stdout=theirs, stderr=theirs, cwd=tmp_path) as process:
        os.close(theirs)
        written = _all_of(ours)
    assert process.returncode == 0
    assert "checking" in written
    assert "images/s" in written
    lines = [line.rpartition("\r")[2].strip() for line in written.replace("\r\n", "\n").split("\n")]
    assert [line for line in lines if line] == ["12 images checked, all good"]


def _all_of(terminal: int) -> str:
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        try:
            while part := stream.read(4096):
                parts.append(part)
        except OSError:  # how Linux says that the other end of a terminal is closed
            pass
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bench", ".", "--workers", "100000"), "100000 is not an integer from 0 to 1024; give about as many"),
        (("demo", "--workers", "9" * 30), "is not an integer from 0 to 1024"),
        (("check", ".", "--jobs", "100000"), "100000 is not an integer from 1 to 1024"),
        (("check", ".", "--jobs", "0"), "0 is not an integer from 1 to 1024"),
        (("bench", ".", "--batch-size", "99999999"), "99999999 is not an integer from 1 to 1048576; give fewer"),
        (("show", ".", "--size", "99999999"), "99999999 is not an integer from 1 to 16384"),
        (("demo", "--images", "99999999999"), "99999999999 is not an integer from 6 to 10000000"),
        (("bench", ".", "--epochs", "99999999999"), "99999999999 is not an integer from 1 to 1000000"),
        (("show", ".", "--seed", "many"), "'many' is not an integer from 0 up"),
        (("demo", "--batch-size", "1000000", "--images", "10000000", "--size", "16000"), "give a smaller --batch-size"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused_at_once(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """Say the number, the limits and what to give, before a thread or an image is made."""
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_the_shell_completes_commands_and_options() -> None:
    """Answer what the line of the guide makes a shell ask."""
    for words, number, expected in (("headrace b", 1, "bench"), ("headrace bench --ba", 2, "--backend")):
        done = subprocess.run(
            COMMAND,
            env={**os.environ, "_HEADRACE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"plain,{expected}\n" in done.stdout


SHELLS = {
    "bash": ["--norc", "-c", "COMP_WORDS=(headrace be); COMP_CWORD=1; _headrace_completion headrace; echo $COMPREPLY"],
    "zsh": ["-f", "-c", "words=(headrace be); CURRENT=2; _describe() { print ${(P)3} }; _headrace_completion"],
    "fish": ["--no-config", "-c", 'complete --do-complete "headrace be"'],
}
"""What a new shell without start-up files runs after the guide's lines, to complete ``headrace be``."""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_guides_lines_for_a_shell_make_it_complete(shell: str, tmp_path: Path) -> None:
    """Give the lines that the guide has for a shell's start-up file to a new one, and let it complete a command."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "command-line.md").read_text(encoding="utf-8")
    lines = "\n".join(re.findall(rf"^(.*\S) +# ~/\S*{shell}.*$", guide, re.MULTILINE))
    assert f"{shell}_source" in lines
    command = tmp_path / "headrace"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    *options, ask = SHELLS[shell]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *options, f"{lines}\n{ask}"],
        env={**os.environ, "PATH": path, "HOME": str(tmp_path), "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "bench" in done.stdout


def test_no_commas_in_what_a_shell_shows_beside_a_command() -> None:
    """Show a command's whole line in fish too, whose script cuts it at a comma."""
    done = subprocess.run(
        COMMAND,
        env={**os.environ, "_HEADRACE_COMPLETE": "fish_complete", "COMP_WORDS": "headrace ", "COMP_CWORD": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(COMMANDS)
    assert all(line.count(",") == 1 for line in lines)
    assert "plain,check\tRead every file and list the bad ones." in lines


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_text_fits_the_terminal(photos: Path, tmp_path: Path, width: int) -> None:
    """Break lines between words at the width of the terminal, also those of the progress line and of errors."""
    (tmp_path / "photos").symlink_to(photos)
    for arguments, status in ((["bench", "photos", "-s", "32", "-n", "18", "-w", "1"], 0), (["show", "nowhere"], 2)):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
        clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=theirs, cwd=tmp_path, env=clean) as process:
            os.close(theirs)
            written = _all_of(ours)
        assert process.returncode == status
        assert ("expected a folder" if status else "waiting") in " ".join(written.split())
        lines = [part for line in written.split("\n") for part in line.split("\r")]
        assert max(map(len, lines)) <= width
