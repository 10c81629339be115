"""The store's tables and how an older file becomes the newest, and back; no script changes once it is released."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from monitord.errors import StoreError
from monitord.storefile import kept_copy, write_copy

_VERSION_1: Final = """
CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of deciding, publishing and redriving
    id           TEXT NOT NULL UNIQUE,
    event        TEXT NOT NULL,
    rule         TEXT NOT NULL,
    rev          TEXT NOT NULL,
    leg          TEXT,
    symbol       TEXT,
    "group"      TEXT,
    severity     TEXT NOT NULL,
    trade_date   TEXT NOT NULL,
    episode      INTEGER NOT NULL,
    ts_event_ms  INTEGER NOT NULL,
    record       BLOB NOT NULL,                      -- the JSON bytes that go to Redis, sockets and webhooks
    committed_ms INTEGER NOT NULL,
    sent_ms      INTEGER,                            -- NULL: in the outbox
    epoch        TEXT,
    off          INTEGER
) STRICT;
CREATE INDEX events_outbox ON events (seq) WHERE sent_ms IS NULL;
CREATE INDEX events_sent ON events (sent_ms) WHERE sent_ms IS NOT NULL;
CREATE INDEX events_by_date ON events (trade_date, rule, symbol);
CREATE INDEX events_by_symbol ON events (symbol, seq);
CREATE INDEX events_by_rule ON events (rule, seq);
CREATE INDEX events_by_time ON events (ts_event_ms);

CREATE TABLE inputs (                                -- the newest input whose events are all here
    source_id TEXT PRIMARY KEY,
    offset    INTEGER NOT NULL
) STRICT;

CREATE TABLE channel (                               -- what the broker has acknowledged: one row
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    epoch TEXT NOT NULL,
    acked INTEGER NOT NULL
) STRICT;
INSERT INTO channel VALUES (1, '', 0);

CREATE TABLE deliveries (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,    -- the order of sending
    receiver   TEXT NOT NULL,
    alert_id   TEXT NOT NULL,
    record     BLOB NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    failures   INTEGER NOT NULL DEFAULT 0,           -- since it was recorded or replayed
    due_ms     INTEGER,                              -- NULL unless pending
    reason     TEXT,                                 -- why it is dead
    created_ms INTEGER NOT NULL,
    UNIQUE (receiver, alert_id)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (receiver, due_ms) WHERE state = 'pending';
CREATE INDEX deliveries_by_alert ON deliveries (alert_id);
CREATE INDEX deliveries_by_state ON deliveries (state, id);

CREATE TABLE attempts (
    delivery_id INTEGER NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    n           INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    latency_ms  INTEGER NOT NULL,
    verdict     TEXT NOT NULL,
    code        INTEGER,
    text        TEXT NOT NULL,
    PRIMARY KEY (delivery_id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE receivers (
    name             TEXT PRIMARY KEY,
    failures         INTEGER NOT NULL,
    failing_since_ms INTEGER,
    hold_until_ms    INTEGER NOT NULL,
    disabled         TEXT
) STRICT;

CREATE TABLE positions (                             -- how far each consumer of the channel has read
    consumer TEXT PRIMARY KEY,
    epoch    TEXT NOT NULL,
    off      INTEGER NOT NULL
) STRICT;
"""

_VERSION_2: Final = """
CREATE TABLE held (                                  -- positions made by API
    book     TEXT NOT NULL,
    symbol   TEXT NOT NULL,
    entry    REAL NOT NULL,
    quantity REAL NOT NULL,
    PRIMARY KEY (book, symbol)
) STRICT, WITHOUT ROWID;
"""

_VERSION_3: Final = """
CREATE INDEX deliveries_settled ON deliveries (created_ms) WHERE state <> 'pending';
"""

_VERSION_4: Final = """
CREATE TABLE deliveries_4 (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,    -- the order of sending
    receiver   TEXT NOT NULL,
    alert_id   TEXT NOT NULL,                        -- of a bundle its own id
    record     BLOB NOT NULL,                        -- of a bundle the JSON list of its alerts' ids
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'withheld')),
    failures   INTEGER NOT NULL DEFAULT 0,           -- since it was recorded or replayed
    due_ms     INTEGER,                              -- NULL unless pending
    reason     TEXT,                                 -- why it is dead or withheld
    created_ms INTEGER NOT NULL,
    since_ms   INTEGER NOT NULL,                     -- when it was due first, since it was recorded or replayed
    route      TEXT NOT NULL DEFAULT '',
    bucket     TEXT,                                 -- where it waits for others
    kind       TEXT CHECK (kind IN ('group', 'digest')),            -- NULL: an alert, else a bundle of alerts
    bundle     INTEGER REFERENCES deliveries_4 (id) ON DELETE SET NULL,  -- the bundle that delivers it
    UNIQUE (receiver, alert_id)
) STRICT;
INSERT INTO deliveries_4 (id, receiver, alert_id, record, state, failures, due_ms, reason, created_ms, since_ms)
    SELECT id, receiver, alert_id, record, state, failures, due_ms, reason, created_ms, created_ms FROM deliveries;
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'deliveries')
    WHERE name = 'deliveries_4';

CREATE TABLE attempts_4 (
    delivery_id INTEGER NOT NULL REFERENCES deliveries_4 (id) ON DELETE CASCADE,
    n           INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    latency_ms  INTEGER NOT NULL,
    verdict     TEXT NOT NULL,
    code        INTEGER,
    text        TEXT NOT NULL,
    PRIMARY KEY (delivery_id, n)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_4 SELECT * FROM attempts;
DROP TABLE attempts;                                 -- first: else they would go with what they refer to
DROP TABLE deliveries;
ALTER TABLE deliveries_4 RENAME TO deliveries;       -- references follow
ALTER TABLE attempts_4 RENAME TO attempts;

CREATE INDEX deliveries_due ON deliveries (receiver, due_ms) WHERE state = 'pending' AND bundle IS NULL;
CREATE INDEX deliveries_bucket ON deliveries (receiver, bucket) WHERE bucket IS NOT NULL;
CREATE INDEX deliveries_bundle ON deliveries (bundle) WHERE bundle IS NOT NULL;
CREATE INDEX deliveries_by_alert ON deliveries (alert_id);
CREATE INDEX deliveries_by_state ON deliveries (state, id);
CREATE INDEX deliveries_settled ON deliveries (created_ms) WHERE state <> 'pending';
CREATE INDEX attempts_by_time ON attempts (at_ms);

CREATE TABLE buckets (                               -- when a group was told last
    receiver TEXT NOT NULL,
    bucket   TEXT NOT NULL,
    told_ms  INTEGER NOT NULL,
    PRIMARY KEY (receiver, bucket)
) STRICT, WITHOUT ROWID;

ALTER TABLE receivers ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE receivers ADD COLUMN alarms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE receivers ADD COLUMN alarmed INTEGER NOT NULL DEFAULT 0;

CREATE TABLE silences (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    matcher    TEXT NOT NULL,                        -- JSON
    start_ms   INTEGER NOT NULL,
    end_ms     INTEGER NOT NULL,
    author     TEXT NOT NULL,
    comment    TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX silences_by_end ON silences (end_ms);
"""

_VERSION_5: Final = """
CREATE TABLE monitors (                              -- rules made by API
    id         INTEGER PRIMARY KEY AUTOINCREMENT,    -- never given a second time: history goes by it
    body       TEXT NOT NULL,                        -- JSON
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (                                 -- monitoring tasks
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    stock_code TEXT NOT NULL UNIQUE,
    body       TEXT NOT NULL,                        -- JSON
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    started_ms INTEGER,                              -- newest start and stop, NULL: none yet
    stopped_ms INTEGER,
    running    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE service (                               -- whether rules are evaluated: one row
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    running  INTEGER NOT NULL,
    since_ms INTEGER                                 -- NULL: never started or stopped by anybody
) STRICT;
INSERT INTO service VALUES (1, 1, NULL);

CREATE INDEX events_of_tasks ON events (seq, rule) WHERE rule GLOB 'task-*';
"""

_VERSION_6: Final = """
CREATE TABLE identity (                              -- tells this store from all others: one row
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id   TEXT NOT NULL
) STRICT;
INSERT INTO identity VALUES (1, lower(hex(randomblob(8))));
"""

MIGRATIONS: Final = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)
"""Script n makes version n + 1 of version n."""

_BACK_TO_1: Final = "DROP TABLE held;"
_BACK_TO_2: Final = "DROP INDEX deliveries_settled;"
_BACK_TO_3: Final = """
CREATE TABLE deliveries_3 (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver   TEXT NOT NULL,
    alert_id   TEXT NOT NULL,
    record     BLOB NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    failures   INTEGER NOT NULL DEFAULT 0,
    due_ms     INTEGER,
    reason     TEXT,
    created_ms INTEGER NOT NULL,
    UNIQUE (receiver, alert_id)
) STRICT;
-- A bundle means nothing to version 3: its alerts are delivered one by one, and one that was withheld is a dead letter.
INSERT INTO deliveries_3 (id, receiver, alert_id, record, state, failures, due_ms, reason, created_ms)
    SELECT id, receiver, alert_id, record, iif(state = 'withheld', 'dead', state), failures,
        iif(state = 'pending', coalesce(due_ms, created_ms), NULL), reason, created_ms
    FROM deliveries WHERE kind IS NULL;
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'deliveries')
    WHERE name = 'deliveries_3';
CREATE TABLE attempts_3 (
    delivery_id INTEGER NOT NULL REFERENCES deliveries_3 (id) ON DELETE CASCADE,
    n           INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    latency_ms  INTEGER NOT NULL,
    verdict     TEXT NOT NULL,
    code        INTEGER,
    text        TEXT NOT NULL,
    PRIMARY KEY (delivery_id, n)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_3 SELECT * FROM attempts WHERE delivery_id IN (SELECT id FROM deliveries_3);
DROP TABLE attempts;
DROP TABLE deliveries;
ALTER TABLE deliveries_3 RENAME TO deliveries;
ALTER TABLE attempts_3 RENAME TO attempts;
CREATE INDEX deliveries_due ON deliveries (receiver, due_ms) WHERE state = 'pending';
CREATE INDEX deliveries_by_alert ON deliveries (alert_id);
CREATE INDEX deliveries_by_state ON deliveries (state, id);
CREATE INDEX deliveries_settled ON deliveries (created_ms) WHERE state <> 'pending';
DROP TABLE buckets;
ALTER TABLE receivers DROP COLUMN refusals;
ALTER TABLE receivers DROP COLUMN alarms;
ALTER TABLE receivers DROP COLUMN alarmed;
DROP TABLE silences;
"""

_BACK_TO_4: Final = """
DROP INDEX events_of_tasks;
DROP TABLE service;
DROP TABLE tasks;
DROP TABLE monitors;
"""

_BACK_TO_5: Final = "DROP TABLE identity;"

DOWNGRADES: Final = (_BACK_TO_1, _BACK_TO_2, _BACK_TO_3, _BACK_TO_4, _BACK_TO_5)
"""Script n makes version n + 1 of version n + 2; what the older version has no place for is lost."""


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring an open file to the newest version, each step in one transaction, with a copy of an older one kept before.

    Raises StoreError for a file of a newer program.
    """
    version = version_of(db)
    if version > len(MIGRATIONS):
        raise StoreError(_too_new(path, version))
    if 0 < version < len(MIGRATIONS):
        write_copy(db, kept_copy(path, version))
    for number in range(version, len(MIGRATIONS)):
        _step(db, MIGRATIONS[number], number + 1)


def downgrade(db: sqlite3.Connection, path: Path, *, to: int) -> None:
    """Bring an open file back to an older version, each step in one transaction, with a copy of it kept before.

    Raises StoreError where this program does not know the file's version or the one asked for.
    """
    version = version_of(db)
    if version > len(MIGRATIONS):
        raise StoreError(_too_new(path, version))
    if not 1 <= to <= version:
        raise StoreError(
            f"store {path} has schema version {version}, which can become one from 1 to {version}, not {to}"
        )
    if to < version:
        write_copy(db, kept_copy(path, version))
    for number in range(version, to, -1):
        _step(db, DOWNGRADES[number - 2], number - 1)


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of the schema, 0 for an empty file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _step(db: sqlite3.Connection, script: str, version: int) -> None:
    try:
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _too_new(path: Path, version: int) -> str:
    known = len(MIGRATIONS)
    kept = next((copy for old in range(known, 0, -1) if (copy := kept_copy(path, old)).exists()), None)
    before = f"; as it was before its upgrade: `monitord restore {kept}`" if kept else ""
    return (
        f"store {path} has schema version {version}, this program knows up to {known}; it was written by a newer "
        f"monitord: use that one, let it go back by `monitord store downgrade --to {known}`, or take another state "
        f"directory{before}"
    )
