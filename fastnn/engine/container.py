"""The file of a checkpoint: safetensors with metadata and a checksum, checked as it is read.

The metadata are strings of JSON. ``checksum`` is BLAKE2b over the other metadata and over every
array's name, element type, shape and bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import files
from fastnn._version import __version__
from fastnn.errors import CheckpointError

FORMAT_VERSION = 1
Arrays = dict[str, np.ndarray]
Metadata = dict[str, Any]

#: safetensors' names of the element types that are read
ELEMENTS = {
    "F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL",
}  # fmt: skip
#: the most characters of metadata
MOST_TEXT = 1 << 24


def checksum(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for key in sorted(metadata):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write(path: Path, arrays: Arrays, metadata: Metadata) -> None:
    """Write aside, flush to the disk, rename."""
    from safetensors.numpy import save

    everything = {
        "format_version": FORMAT_VERSION, "fastnn_version": __version__, **metadata
    }  # fmt: skip
    texts = {key: json.dumps(value, sort_keys=True) for key, value in everything.items()}
    texts["checksum"] = checksum(arrays, texts)
    files.write(path, _ordered(save(arrays, texts)), "checkpoint", CheckpointError)


def _ordered(contents: bytes) -> bytes:
    """The file with its metadata in order, so that equal checkpoints are equal files: safetensors
    writes them as they come out of a hash map with a random seed.

    A file begins with the size of its header in 8 bytes; the header is JSON, filled up with spaces.
    """
    end = 8 + int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(contents)[end:]))


def read(path: Path) -> tuple[Arrays, Metadata]:
    """Arrays and metadata of a file, checked against its checksum; what they mean is not."""
    with _opened(path) as file:
        texts = dict(file.metadata() or {})
        if "format_version" not in texts or "checksum" not in texts:
            raise CheckpointError(
                f"checkpoint {str(path)!r}: fastnn did not write this safetensors file; read it "
                "with safetensors.numpy.load_file and give the arrays to model.load_state_dict"
            )
        version = texts["format_version"]
        if version != str(FORMAT_VERSION):
            raise CheckpointError(
                f"checkpoint {str(path)!r}: expected format version {FORMAT_VERSION}, got "
                f"{files.one_line(version, 40)}; read it with the fastnn that wrote it "
                f"({files.one_line(texts.get('fastnn_version', 'unknown'), 40)})"
            )
        if sum(map(len, texts.values())) > MOST_TEXT:
            raise CheckpointError(
                f"checkpoint {str(path)!r}: expected at most {MOST_TEXT:,} characters of metadata; "
                "fastnn did not write it"
            )
        names = list(file.keys())
        for name in names:
            kind = str(file.get_slice(name).get_dtype())
            if kind not in ELEMENTS:
                raise CheckpointError(
                    f"checkpoint {str(path)!r}: {files.one_line(name, 80)!r} has element type "
                    f"{kind}, which fastnn does not write; convert it to float32"
                )
        arrays = {name: np.asarray(file.get_tensor(name)) for name in names}
    if checksum(arrays, {k: t for k, t in texts.items() if k != "checksum"}) != texts["checksum"]:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: its contents don't match its checksum: it was changed or "
            "damaged after it was written; use another copy or an earlier checkpoint"
        )
    del texts["checksum"]
    return arrays, {key: _parsed(key, text, path) for key, text in texts.items()}


def head(path: Path) -> Metadata:
    """The metadata of a file without a look at its arrays, checksum included; nothing where fastnn
    did not write it or it can't be read, of which `read` tells."""
    from safetensors import safe_open

    try:
        files.regular(path, "checkpoint", CheckpointError)
        with safe_open(path, framework="numpy") as file:
            texts = dict(file.metadata() or {})
        found = texts.pop("checksum")
        return {key: json.loads(text) for key, text in texts.items()} | {"checksum": found}
    except Exception:  # whatever the parser, Python or JSON make of it
        return {}


def _parsed(key: str, text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: {files.one_line(key, 40)!r} is not JSON "
            f"({files.one_line(error, 100)}); fastnn did not write it"
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    files.regular(path, "checkpoint", CheckpointError)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r} cannot be read: {files.one_line(error)}; check its "
            "permissions"
        ) from None
    # the parser's own error, and what it lets through from NumPy and from Python
    except (
        SafetensorError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
        RuntimeError, MemoryError,
    ) as error:  # fmt: skip
        if _is_pytorch(path):
            raise CheckpointError(
                f"checkpoint {str(path)!r} is one of torch.save, expected a safetensors file; load "
                "it with torch.load and hand its state_dict to model.load_state_dict, or write it "
                "with safetensors.torch.save_file"
            ) from None
        raise CheckpointError(
            f"checkpoint {str(path)!r} is not a whole safetensors file "
            f"({files.one_line(error, 120)}): it is truncated, damaged, or something else; use "
            "another copy or an earlier checkpoint"
        ) from None


def _is_pytorch(path: Path) -> bool:
    """Whether a file begins as those of ``torch.save`` do: a zip archive, or pickled numbers."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")
    except OSError:
        return False
