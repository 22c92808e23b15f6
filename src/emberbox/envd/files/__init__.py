"""The plain HTTP endpoints under /files: whole files, streamed."""

from __future__ import annotations
