"""Several processes train one model: its bits are the same in each, its numbers those of one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from fastnn import parallel
from fastnn.errors import OptionError, ProcessError
from tests.parallel import works


class Communicator:
    """A communicator of MPI's, of threads: the calls that are made of mpi4py's."""

    def __init__(self, rank: int, rows: list[Any], barrier: threading.Barrier):
        self.rank, self.rows, self.barrier = rank, rows, barrier

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.rows)

    def Allgather(self, mine: np.ndarray, found: np.ndarray) -> None:
        assert mine.flags.c_contiguous
        self.rows[self.rank] = mine.copy()
        self.barrier.wait(60)
        found[...] = np.stack(self.rows)
        self.barrier.wait(60)


def in_threads(size: int, work: Any) -> list[Any]:
    rows: list[Any] = [None] * size
    barrier, results = threading.Barrier(size), [None] * size

    def call(rank: int) -> None:
        results[rank] = work(parallel.mpi(Communicator(rank, rows, barrier)))

    threads = [threading.Thread(target=call, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(scope="module")
def two() -> list[Any]:
    return parallel.run(works.train, processes=2)


def test_all_processes_have_the_same_bits(two: list[Any]) -> None:
    assert [part.start for part, _, _ in two] == [0, 1]
    assert two[0][1] == two[1][1]
    assert two[0][2] != two[1][2]  # of losses on their own samples


def test_the_numbers_are_those_of_one_process_with_all_samples(two: list[Any]) -> None:
    alone = works.trainer()
    alone.fit(works.X[:24], works.Y[:24], epochs=2, batch_size=12, shuffle=False, verbose=False)
    before = works.trainer().get_parameters()
    for name, want in alone.get_parameters().items():
        found = np.frombuffer(two[0][1][name], np.float32).reshape(want.shape)
        np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-6)
        assert np.abs(want - before[name]).max() > 1e-3


def test_mpi_gives_the_bits_of_shared_memory(two: list[Any]) -> None:
    for found, want in zip(in_threads(2, works.train), two, strict=True):
        assert found == want


@pytest.mark.parametrize("chunk", [4, 12, 1 << 22])
def test_a_mean_in_parts_is_summed_in_order(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("fastnn.parallel.group.CHUNK", chunk)
    rng = np.random.default_rng(0)
    given = [
        {"a": rng.normal(size=(2, 5)).astype(np.float32), "b": rng.normal(size=3),
         "c": rng.normal(size=(4, 1)).astype(np.float32).T}
        for _ in range(3)
    ]  # fmt: skip
    want = {
        name: ((given[0][name] + given[1][name]) + given[2][name]) / given[0][name].dtype.type(3)
        for name in "abc"
    }

    def work(group: parallel.Group) -> None:
        group.average(given[group.rank])

    in_threads(3, work)
    for mine in given:
        for name in "abc":
            np.testing.assert_array_equal(mine[name], want[name])


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (works.fails, "process 1 of 2 failed: ValueError: no data here"),
        (works.dies, r"process 1 of 2 failed: ended without a word \(killed\?\)"),
        (works.has_fewer_steps, "process 0 has ended while others were in the middle"),
        (works.has_another_model, r"gradients of one model in all processes, got \[3, 4\] numbers"),
    ],
)
def test_a_process_that_fails_ends_all(work: Any, text: str) -> None:
    with pytest.raises(ProcessError, match=text):
        parallel.run(work, processes=2)


def test_options() -> None:
    with pytest.raises(OptionError, match="processes"):
        parallel.run(works.train, processes=0)
    with pytest.raises(OptionError, match="a function at the top of a module"):
        parallel.run(lambda group: None, processes=1)
    group = parallel.mpi(Communicator(1, [None] * 3, threading.Barrier(3)))
    assert group.share(11) == slice(1, 9, 3)
    with pytest.raises(OptionError, match="at least one sample for each of 3 processes, got 2"):
        group.share(2)


def test_without_mpi_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mpi4py", None)
    with pytest.raises(OptionError, match=r"parallel\.mpi: mpi4py cannot be used .* parallel\.run"):
        parallel.mpi()
