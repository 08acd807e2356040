-- Limits and rates. A job that has one, or both, waits in held for a pass of each of its gates, and is never ready without.
-- A gate is what all jobs of one key go through: of a limit its passes are slots, of a rate they are starts.

ALTER TABLE litestar_jobs.held ADD COLUMN IF NOT EXISTS key text;
ALTER TABLE litestar_jobs.held
    DROP CONSTRAINT IF EXISTS held_key,
    ADD CONSTRAINT held_key CHECK ((reason IN ('limit', 'rate')) = (key IS NOT NULL)) NOT VALID;
CREATE INDEX IF NOT EXISTS held_gate ON litestar_jobs.held (reason, key, priority, run_at, id) WHERE key IS NOT NULL;
ALTER TABLE litestar_jobs.held SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
COMMENT ON COLUMN litestar_jobs.held.key IS 'Of a job that waits at a gate: together with the reason, which one.';

-- Beside job, so that the others do not pay for it. The gates of a job come one after the other: its first one is said
-- here, where every statement that makes jobs wait looks for it.
CREATE TABLE IF NOT EXISTS litestar_jobs.limited (
    id          uuid    NOT NULL PRIMARY KEY,
    per         float8  CHECK (per > 0),
    concurrency integer CHECK (concurrency BETWEEN 1 AND 10000),
    rate        integer CHECK (rate BETWEEN 1 AND 10000),
    limit_key   text    CHECK (char_length(limit_key) BETWEEN 1 AND 401),
    rate_key    text    CHECK (char_length(rate_key) BETWEEN 1 AND 401),
    reason      text    NOT NULL GENERATED ALWAYS AS (CASE WHEN limit_key IS NULL THEN 'rate' ELSE 'limit' END) STORED,
    key         text    NOT NULL GENERATED ALWAYS AS (COALESCE(limit_key, rate_key)) STORED,
    CHECK ((limit_key IS NULL) = (concurrency IS NULL) AND (rate_key IS NULL) = (rate IS NULL)
           AND (rate_key IS NULL) = (per IS NULL))
);
COMMENT ON TABLE litestar_jobs.limited IS 'Jobs with a limit or a rate: their keys, and the numbers when they were enqueued.';

-- The row of a gate is the right to let jobs through. Whoever does makes its turn one more, and does so only if the turn
-- is the one that was seen when the passes were counted. A gate without a row has no passes.
CREATE TABLE IF NOT EXISTS litestar_jobs.gate (
    reason text    NOT NULL CHECK (reason IN ('limit', 'rate')),
    key    text    NOT NULL,
    turn   bigint  NOT NULL,
    most   integer NOT NULL,
    per    float8,
    PRIMARY KEY (reason, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE litestar_jobs.gate IS 'Keys of limits and rates, with the numbers that held last.';

CREATE TABLE IF NOT EXISTS litestar_jobs.pass (
    reason     text        NOT NULL,
    key        text        NOT NULL,
    id         uuid        NOT NULL,
    passed_at  timestamptz NOT NULL,
    started_at timestamptz,
    PRIMARY KEY (reason, key, id, passed_at)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE litestar_jobs.pass IS 'Which jobs were let through a gate, as long as that counts.';
COMMENT ON COLUMN litestar_jobs.pass.started_at IS 'Of a rate: when the job began after that, once somebody has looked.';
