"""Guides of requests, and the processes that judge each one before an engine gets it."""
