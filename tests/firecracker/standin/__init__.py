"""A stand-in for Firecracker and its jailer, for tests on machines without KVM.

It is no VMM: it has no vCPUs and runs no guest. What it has of Firecracker is the published
interface: the API on its Unix socket, strict about methods, paths, fields, order, state and
sizes, and the files that the API reads and writes, opened from where and as whom Firecracker
would. It needs nothing but Python's standard library, and runs as a real process.
"""

from __future__ import annotations
