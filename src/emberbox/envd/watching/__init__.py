"""Watching directories: inotify, the tree of what is watched, streams and pollers."""

from __future__ import annotations
