"""A worker process of the data proxy."""

from __future__ import annotations

from emberbox.orchestrator.data_proxy.worker import main

main()
