"""Reading and writing files so that whatever goes wrong is an error of fastnn's, in one line.

Paths may begin with `~`. Only regular files are read and written: a device, a pipe or a folder is
refused. A file that is written appears whole or not at all: it is written beside its place, flushed
to the disk and renamed. A symbolic link stays one: the file that it points to is replaced. An old
file's permissions are kept.

What a killed process left beside a file is removed when that file is next written: a name like
`.model.safetensors.0123456789ab.fastnn-tmp` whose writer no longer holds its lock.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fastnn.errors import DataError, FastnnError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if sys.platform != "win32":
    import fcntl

#: ends the name of a file that is being written
TEMPORARY = ".fastnn-tmp"
#: longest part of a name, in bytes, that a temporary file repeats: names end at 255
_LONGEST = 200
_BLOCK = 1 << 20

Fault = type[FastnnError]


def as_path(path: Any, what: str = "path", fault: Fault = DataError) -> Path:
    """A path that a user gave, with `~` for the home folder.

    Args:
        path: a string, bytes or path-like object.
        what: what the error calls it.
        fault: the class of the error.

    >>> as_path("runs/model.safetensors").name
    'model.safetensors'
    """
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except (TypeError, ValueError):
        raise fault(f"{what}: expected a path (a string or pathlib.Path), got {path!r}") from None
    if not text or "\0" in text:
        raise fault(f"{what}: expected a path, got {text!r}; it is empty or has a NUL in it")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home
        raise fault(
            f"{what}: the home folder in {text!r} cannot be found; write the path without '~'"
        ) from None


@contextlib.contextmanager
def told(what: str, remedy: str, fault: Fault = DataError) -> Iterator[None]:
    """Turns the system's errors into one of fastnn's: `what` cannot be done; `remedy`."""
    try:
        yield
    except FastnnError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise fault(f"{what}: {one_line(reason)}; {remedy}") from error


def one_line(reason: Any, longest: int = 300) -> str:
    """An error's text on one line, shortened."""
    text = " ".join(str(reason).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


# -------------------------------------------------------------------- reading


def regular(path: Path, what: str, fault: Fault = DataError) -> int:
    """The size in bytes of a regular file; an error where there is none."""
    with told(f"{what} {str(path)!r} cannot be read", "check the path and its permissions", fault):
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise fault(f"{what} {str(path)!r}: there is no such file; check the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise fault(f"{what} {str(path)!r}: expected a file, it is {_kind(found.st_mode)}")
    return found.st_size


def read_bytes(path: Path, what: str = "file", fault: Fault = DataError) -> bytes:
    """The contents of a regular file."""
    regular(path, what, fault)
    with told(f"{what} {str(path)!r} cannot be read", "check its permissions", fault):
        return path.read_bytes()


def lines_of(text: str) -> list[str]:
    r"""The lines of a text, which end in a line feed, a carriage return or both, and in nothing
    else: `str.splitlines` also ends them at separators that may stand within a sentence.

    >>> lines_of("one\u2028still\r\ntwo\n")
    ['one\u2028still', 'two']
    """
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def read_text(path: Path, what: str = "file", fault: Fault = DataError) -> str:
    """The contents of a UTF-8 file, with all ends of lines as "\\n", and without a byte order mark
    at its beginning."""
    return _decoded(read_bytes(path, what, fault), f"{what} {str(path)!r}", fault)


def read_input(what: str = "the standard input", fault: Fault = DataError) -> str:
    """What comes in as UTF-8 from the standard input, with all ends of lines as "\\n"."""
    with told(f"{what} cannot be read", "give a file or a pipe that can be read", fault):
        if sys.stdin is None:  # as a shell's <&- leaves it
            raise ValueError("it is closed")
        content = sys.stdin.buffer.read()
    return _decoded(content, what, fault)


def _decoded(content: bytes, what: str, fault: Fault) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fault(
            f"{what}: expected UTF-8, got byte {content[error.start]:#04x} at place "
            f"{error.start}; {_converted(content, error)}"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _converted(content: bytes, error: UnicodeDecodeError) -> str:
    """What helps against a text that is not UTF-8."""
    if content.startswith(b"\x1f\x8b"):
        return "it is packed: unpack it with gunzip"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "convert it with iconv -f utf-16 -t utf-8"
    if error.reason == "unexpected end of data":
        return "it ends within a character: is it truncated?"
    return "convert it, say with iconv -f latin1 -t utf-8"


def strings(value: Any) -> bool:
    """Whether what came from JSON is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def check_options(options: Any) -> None:
    """Whether a model's options from JSON are of a size that a model has.

    Raises ValueError where they are not: a layer for each of a billion would be made otherwise.
    """
    if not isinstance(options, dict):
        raise ValueError("options are not named")
    for name, value in options.items():
        many = 1000 if "layers" in name else 10**7
        if isinstance(value, (int, float)) and not abs(value) <= many:
            raise ValueError(f"{name}={value!r} is more than {many}"[:200])
        if not isinstance(value, (int, float, str, type(None))):
            raise ValueError(f"{name} is neither a number nor a string")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "something else")


# -------------------------------------------------------------------- writing


def write(path: Path, content: bytes, what: str = "file", fault: Fault = DataError) -> None:
    """Make a file of these contents, whole or not at all; missing folders are made.

    Raises `fault` where it cannot be written; an old file is still there then.
    """
    with told(
        f"{what} {str(path)!r} cannot be written",
        "choose another place, or make room and save again",
        fault,
    ):
        target = Path(os.path.realpath(path))
        mode = _old_mode(target, path, what, fault)
        target.parent.mkdir(parents=True, exist_ok=True)
        clean(target)
        aside, file = _aside(target)
        try:
            with file:
                if mode is not None:
                    with contextlib.suppress(OSError):
                        os.chmod(aside, stat.S_IMODE(mode))
                for begin in range(0, len(content), _BLOCK):
                    file.write(content[begin : begin + _BLOCK])
                file.flush()
                os.fsync(file.fileno())
                if os.name == "posix":  # while it is still locked, so that nobody takes it away
                    os.replace(aside, target)
            if os.name != "posix":
                os.replace(aside, target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        _flush_folder(target.parent)


def write_text(path: Path, text: str, what: str = "file", fault: Fault = DataError) -> None:
    """`write` of a text as UTF-8."""
    with told(f"{what} {str(path)!r} cannot be written", "the text is not Unicode", fault):
        content = text.encode("utf-8")
    write(path, content, what, fault)


def new_figure(width: float, height: float) -> Figure:
    """An empty matplotlib figure, in inches; it needs no display.

    Raises ImportError where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "plotting needs matplotlib, which is not installed: pip install matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Any) -> None:
    """Write a matplotlib figure, in the format that the path's ending says (PNG without one)."""
    target = as_path(path)
    buffer = io.BytesIO()
    with told(f"picture {str(target)!r} cannot be drawn", "choose .png, .svg or .pdf"):
        figure.savefig(buffer, format=target.suffix[1:] or "png", dpi=150)
    write(target if target.suffix else target.with_suffix(".png"), buffer.getvalue(), "picture")


def clean(target: Path) -> None:
    """Remove what killed processes left when they wrote this file."""
    begin = f".{_stem(target.name)}."
    try:
        names = os.listdir(target.parent)
    except OSError:
        return
    for name in names:
        middle = name[len(begin) : -len(TEMPORARY)]
        if not (name.startswith(begin) and name.endswith(TEMPORARY) and len(middle) == 12):
            continue
        with contextlib.suppress(OSError):
            _remove_if_dead(target.parent / name)


def _remove_if_dead(aside: Path) -> None:
    """Remove a temporary file, unless its writer lives: then it holds the lock."""
    if sys.platform == "win32":
        aside.unlink()  # refused while it is open
        return
    handle = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.unlink()
    finally:
        os.close(handle)


def _aside(target: Path) -> tuple[Path, IO[bytes]]:
    """A new file beside `target`, locked as long as it is open."""
    while True:
        aside = target.with_name(f".{_stem(target.name)}.{secrets.token_hex(6)}{TEMPORARY}")
        file = aside.open("xb")
        try:
            if sys.platform == "win32":
                return aside, file
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # nobody took it away before it was locked
                return aside, file
            file.close()
        except BaseException:
            file.close()
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def _stem(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else hashlib.blake2b(encoded).hexdigest()[:32]


def _old_mode(target: Path, path: Path, what: str, fault: Fault) -> int | None:
    """The permissions of the file that is to be replaced; None where there is none."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        raise fault(f"{what} {str(path)!r} cannot be written: it is a link that leads to itself")
    if not stat.S_ISREG(mode):
        raise fault(
            f"{what} {str(path)!r} cannot be written: expected a file or nothing there, it is "
            f"{_kind(mode)}; choose another name"
        )
    return mode


def _flush_folder(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk, where the system can do that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # a folder that may be written and not read
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
