"""The tables. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect


class UtcDateTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no zone, so it goes in as UTC and is read as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse what has no zone: it would be read back as another moment."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """With its zone."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

cluster_settings = Table(
    "cluster_settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
)

teams = Table(
    "teams",
    metadata,
    Column("team_id", String(36), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    # NULL is unlimited.
    Column("concurrent_sandboxes", Integer),
    Column("max_length_hours", Integer),
    Column("max_vcpu", Integer),
    Column("max_ram_mb", Integer),
    Column("max_disk_mb", Integer),
    Column("total_vcpu", Integer),
    Column("total_ram_mb", Integer),
    Column("total_disk_mb", Integer),
    # What a node must have to be given its sandboxes. NULL: nothing.
    Column("node_labels", JSON),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(36), primary_key=True),
    Column("team_id", ForeignKey("teams.team_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("mask_prefix", String(16), nullable=False),
    Column("mask_first", String(2), nullable=False),
    Column("mask_last", String(4), nullable=False),
    Column("value_length", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

templates = Table(
    "templates",
    metadata,
    Column("template_id", String(64), primary_key=True),
    # NULL: built in, for every team.
    Column("team_id", ForeignKey("teams.team_id", ondelete="CASCADE"), index=True),
    Column("build_id", String(36), nullable=False),
    Column("vcpu", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("envd_version", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

template_names = Table(
    "template_names",
    metadata,
    Column("name", String(128), primary_key=True),
    Column(
        "template_id",
        ForeignKey("templates.template_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
)

template_builds = Table(
    "template_builds",
    metadata,
    Column("build_id", String(36), primary_key=True),
    # No foreign key: when a team goes, its builds stay until their nodes have removed them.
    Column("template_id", String(64), nullable=False, index=True),
    # Where its files are.
    Column("node_id", String(128), nullable=False),
    # making, ready or deleting (`store.rows.BuildState`).
    Column("state", String(16), nullable=False, index=True),
    Column("vcpu", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("envd_version", String(32), nullable=False),
    # False: a sandbox of it boots from files.
    Column("memory", Boolean, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    # The sandbox that it was made of.
    Column("origin_sandbox_id", String(64), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
)

template_tags = Table(
    "template_tags",
    metadata,
    Column(
        "template_id", ForeignKey("templates.template_id", ondelete="CASCADE"), primary_key=True
    ),
    Column("tag", String(128), primary_key=True),
    Column(
        "build_id",
        ForeignKey("template_builds.build_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("created_at", UtcDateTime, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", String(128), primary_key=True),
    # host:port of its gRPC, as API servers reach it, and of its data proxy, as client proxies do.
    Column("address", String(256), nullable=False),
    Column("data_address", String(256), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("version", String(32), nullable=False),
    Column("driver", String(32), nullable=False),
    Column("accelerator", String(32), nullable=False),
    Column("cpu_model", String(128), nullable=False),
    Column("cpu_count", Integer, nullable=False),
    # Processors that were busy, as of the last word.
    Column("cpu_used", Float, nullable=False),
    Column("memory_total_mb", BigInteger, nullable=False),
    Column("memory_available_mb", BigInteger, nullable=False),
    Column("disk_available_mb", BigInteger, nullable=False),
    # Its own limits: sandboxes that run at once, and memory promised to all of them.
    Column("max_sandboxes", Integer, nullable=False),
    Column("max_ram_mb", BigInteger, nullable=False),
    # The same on all nodes that see the same files of paused sandboxes; empty: it shares none.
    Column("shared_directory", String(64), nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("status", String(512), nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    # The API server that follows its events and compares its lists, and until when.
    Column("keeper_id", String(256)),
    Column("kept_until", UtcDateTime),
)

node_templates = Table(
    "node_templates",
    metadata,
    Column("node_id", String(128), primary_key=True),
    Column("template_id", String(64), primary_key=True),
    # Each node takes its own snapshot of a template.
    Column("build_id", String(36), nullable=False),
    Column("vcpu", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("envd_version", String(32), nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("sandbox_id", String(64), primary_key=True),
    Column("team_id", ForeignKey("teams.team_id", ondelete="CASCADE"), nullable=False),
    Column("execution_id", String(36), nullable=False),
    Column("node_id", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("template_id", String(64), nullable=False),
    Column("template_name", String(128)),
    # The template that clients are shown, when it is made of a build that is not theirs to name.
    Column("shown_template_id", String(64)),
    Column("build_id", String(36), nullable=False),
    Column("vcpu", Integer, nullable=False),
    Column("ram_mb", Integer, nullable=False),
    Column("disk_mb", Integer, nullable=False),
    Column("envd_version", String(32), nullable=False),
    Column("secure", Boolean, nullable=False),
    Column("allow_internet_access", Boolean),
    Column("public_traffic", Boolean, nullable=False),
    # What create asked for beyond the columns, as it came (mcp, network, …).
    Column("options", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    # A copy: the orchestrator's deadline is the truth.
    Column("end_at", UtcDateTime, nullable=False),
    # Seconds that it lived for at first: so long it lives after it was resumed by traffic.
    Column("timeout", Integer, nullable=False),
    Column("auto_pause", Boolean, nullable=False),
    Column("auto_pause_memory", Boolean, nullable=False),
    Column("auto_resume", Boolean, nullable=False),
    Column("paused_at", UtcDateTime),
    Column("paused_memory", Boolean),
    # What its node said of a start that went otherwise than asked for.
    Column("notice", String(512)),
    Column("ended_at", UtcDateTime),
    Column("end_reason", String(512)),
    Column("idempotency_key", String(255)),
    Column("request_hash", String(64)),
    UniqueConstraint("team_id", "idempotency_key"),
    # Quota, lists of a team, lists of a node.
    Index(None, "team_id", "state", "vcpu", "ram_mb", "disk_mb"),
    Index(None, "team_id", "started_at", "sandbox_id"),
    Index(None, "node_id", "state"),
    Index(None, "state", "ended_at"),
    Index(None, "build_id"),
)

# The event log. Without foreign keys: it tells of sandboxes and teams that are gone.
sandbox_events = Table(
    "sandbox_events",
    metadata,
    # In the order in which they were written. SQLite counts in columns of this very type alone.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("event_id", String(36), nullable=False, unique=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("what", String(32), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("sandbox_id", String(64), nullable=False),
    Column("execution_id", String(36), nullable=False),
    Column("team_id", String(36), nullable=False),
    Column("node_id", String(128), nullable=False),
    Column("template_id", String(64), nullable=False),
    Column("build_id", String(36), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Index(None, "sandbox_id", "number"),
    Index(None, "team_id", "number"),
)
