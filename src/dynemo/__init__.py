"""dynemo-run: one command that serves a large language model."""

__version__ = "0.1.0"
