"""The version; a module of its own, for files that say who wrote them."""

__version__ = "0.1.0"
