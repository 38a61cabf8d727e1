"""All tests run with poisoned memory: what a step reads without having written it is NaN."""

import os

os.environ.setdefault("FASTNN_POISON", "1")
