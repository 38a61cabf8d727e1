"""Tests go to the processes of pytest-xdist file by file, and a process that ends hangs no run."""

import contextlib
from collections import OrderedDict

from xdist.scheduler import LoadFileScheduling


class ByFile(LoadFileScheduling):
    """As `--dist loadfile`, but tests of the files named in `apart` go one by one.

    When a process ends in the middle of a test (a signal, no memory), xdist 3.8 runs that test
    again, hands out files that are done, for which no answer ever comes, and gives the process
    that takes its place one file, whose last test waits for a second one: the run hangs. Here the
    test counts as done (and failed), only files with tests left are handed out, processes are
    given files until two tests wait, and none is given any before it has reported its tests.
    """

    def __init__(self, config, log, apart=()):
        super().__init__(config, log)
        self.apart = apart

    def _split_scope(self, nodeid):
        return (
            nodeid if any(name in nodeid for name in self.apart) else super()._split_scope(nodeid)
        )

    def remove_node(self, node):
        left = {
            scope: {test: False for test, done in tests.items() if not done}
            for scope, tests in self.assigned_work.pop(node).items()
        }
        left = {scope: tests for scope, tests in left.items() if tests}
        if not left:
            return None
        scope = next(iter(left))
        crashed = next(iter(left[scope]))
        del left[scope][crashed]
        if not left[scope]:
            del left[scope]
        self.workqueue = OrderedDict(left | self.workqueue)
        self._supply()
        return crashed

    def _assign_work_unit(self, node):
        # a process that has just ended takes nothing: the file is its own until that is reported
        with contextlib.suppress(OSError):
            super()._assign_work_unit(node)

    def schedule(self):
        if self.collection is None:
            super().schedule()
        else:
            self._supply()

    def _supply(self):
        """Hands files to every process that works, until two tests wait or no file is left."""
        for node in self.nodes:
            if node not in self.registered_collections or node.shutting_down:
                continue
            while self.workqueue and self._pending_of(self.assigned_work[node]) <= 2:
                self._assign_work_unit(node)
            if not self.workqueue:
                node.shutdown()
