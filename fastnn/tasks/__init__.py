"""Whole tasks on public data: model, features and training, one file a task.

`fastnn train TASK` runs them; each is also a library that other programs may use.
"""
