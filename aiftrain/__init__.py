"""aiftrain: describe, price, start and keep LLM training runs on European supercomputers."""

__version__ = "0.1.0"
