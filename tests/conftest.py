"""All tests run with poisoned memory: what a step reads without having written it is NaN."""

import os
import signal
import threading

os.environ.setdefault("FASTNN_POISON", "1")

# a shell that runs the tests in its background has them ignore Ctrl-C, which some of them send
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
