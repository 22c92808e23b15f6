"""Errors that every program raises before it serves.

EmberboxError
└── StartupError    a program cannot start; one line that says what to do
"""

from __future__ import annotations


class EmberboxError(Exception):
    """Base of the errors that Emberbox's own programs raise."""


class StartupError(EmberboxError):
    """A program cannot start. Its message is one line: what is wrong and the remedy."""
