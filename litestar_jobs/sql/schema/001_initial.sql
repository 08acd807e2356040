-- One table per state: a job is in exactly one of scheduled, ready, running and finished, and that table is its state.
-- Every move deletes here and inserts there in one statement. Rows of ready are never updated: a claim relies on it.

CREATE TABLE IF NOT EXISTS litestar_jobs.job (
    id          uuid        NOT NULL PRIMARY KEY,
    run_at      timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    max_retries smallint    NOT NULL CHECK (max_retries >= 0),
    priority    smallint    NOT NULL,
    queue       text        NOT NULL CHECK (char_length(queue) BETWEEN 1 AND 100),
    job_type    text        NOT NULL CHECK (char_length(job_type) BETWEEN 1 AND 200),
    payload     jsonb       NOT NULL,
    trace_id    text        CHECK (char_length(trace_id) BETWEEN 1 AND 64),
    headers     jsonb
);
COMMENT ON TABLE litestar_jobs.job IS 'What was asked for.';

CREATE TABLE IF NOT EXISTS litestar_jobs.scheduled (
    id       uuid        NOT NULL PRIMARY KEY,
    run_at   timestamptz NOT NULL,
    priority smallint    NOT NULL,
    attempts smallint    NOT NULL CHECK (attempts >= 0),
    queue    text        NOT NULL
);
COMMENT ON TABLE litestar_jobs.scheduled IS 'Jobs that may run later.';
CREATE INDEX IF NOT EXISTS scheduled_due ON litestar_jobs.scheduled (run_at);

CREATE TABLE IF NOT EXISTS litestar_jobs.ready (
    id       uuid        NOT NULL PRIMARY KEY,
    run_at   timestamptz NOT NULL,
    priority smallint    NOT NULL,
    attempts smallint    NOT NULL CHECK (attempts >= 0),
    queue    text        NOT NULL
);
COMMENT ON TABLE litestar_jobs.ready IS 'Jobs that may run now.';
CREATE INDEX IF NOT EXISTS ready_order ON litestar_jobs.ready (queue, priority, run_at, id);

-- Tokens come from one sequence, so that no two attempts of any job ever share one.
CREATE SEQUENCE IF NOT EXISTS litestar_jobs.token AS bigint CACHE 100;

CREATE TABLE IF NOT EXISTS litestar_jobs.running (
    id         uuid        NOT NULL PRIMARY KEY,
    token      bigint      NOT NULL,
    started_at timestamptz NOT NULL,
    deadline   timestamptz,
    worker_id  uuid        NOT NULL,
    attempt    smallint    NOT NULL CHECK (attempt > 0),
    queue      text        NOT NULL
);
COMMENT ON TABLE litestar_jobs.running IS 'Live attempts. The token is the right to write for the job.';

CREATE TABLE IF NOT EXISTS litestar_jobs.finished (
    id          uuid        NOT NULL PRIMARY KEY,
    started_at  timestamptz,
    finished_at timestamptz NOT NULL,
    worker_id   uuid,
    attempts    smallint    NOT NULL CHECK (attempts >= 0),
    status      text        NOT NULL CHECK (status IN ('completed', 'failed', 'cancelled')),
    result      jsonb
);
COMMENT ON TABLE litestar_jobs.finished IS 'How jobs ended.';
-- Completed jobs, nearly all of them, do not pay for this index.
CREATE INDEX IF NOT EXISTS finished_badly ON litestar_jobs.finished (status, finished_at) WHERE status <> 'completed';

CREATE TABLE IF NOT EXISTS litestar_jobs.failure (
    id         uuid        NOT NULL,
    failed_at  timestamptz NOT NULL,
    attempt    smallint    NOT NULL CHECK (attempt > 0),
    error_type text        NOT NULL,
    message    text        NOT NULL,
    traceback  text
);
COMMENT ON TABLE litestar_jobs.failure IS 'Failed attempts, one row each.';
CREATE INDEX IF NOT EXISTS failure_job ON litestar_jobs.failure (id);

CREATE TABLE IF NOT EXISTS litestar_jobs.worker (
    id         uuid        NOT NULL PRIMARY KEY,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    pid        integer     NOT NULL,
    hostname   text        NOT NULL,
    queues     text[]      NOT NULL
);
COMMENT ON TABLE litestar_jobs.worker IS 'Live processes. One that does not renew its lease in time loses its jobs.';

-- Reading goes through here. Each branch is a state, so a condition on status leaves only the tables it is about.
CREATE OR REPLACE VIEW litestar_jobs.jobs AS
SELECT state.id, state.queue, state.job_type, state.payload, state.status, state.attempts, state.max_retries,
       state.priority, state.run_at, state.started_at, state.locked_until, state.finished_at,
       (SELECT f.error_type || COALESCE(': ' || NULLIF(f.message, ''), '') FROM litestar_jobs.failure f
         WHERE f.id = state.id ORDER BY f.failed_at DESC LIMIT 1) AS last_error,
       state.trace_id, state.created_at
  FROM (SELECT job.id, s.queue, job.job_type, job.payload, 'pending'::text AS status, s.attempts, job.max_retries,
               s.priority, s.run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS locked_until,
               NULL::timestamptz AS finished_at, job.trace_id, job.created_at
          FROM litestar_jobs.scheduled s JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, r.queue, job.job_type, job.payload, 'pending', r.attempts, job.max_retries,
               r.priority, r.run_at, NULL, NULL, NULL, job.trace_id, job.created_at
          FROM litestar_jobs.ready r JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, r.queue, job.job_type, job.payload, 'running', r.attempt, job.max_retries,
               job.priority, job.run_at, r.started_at, w.expires_at, NULL, job.trace_id, job.created_at
          FROM litestar_jobs.running r JOIN litestar_jobs.job USING (id)
               LEFT JOIN litestar_jobs.worker w ON w.id = r.worker_id
        UNION ALL
        SELECT job.id, job.queue, job.job_type, job.payload, e.status, e.attempts, job.max_retries,
               job.priority, job.run_at, e.started_at, NULL, e.finished_at, job.trace_id, job.created_at
          FROM litestar_jobs.finished e JOIN litestar_jobs.job USING (id)) AS state;
COMMENT ON VIEW litestar_jobs.jobs IS 'Every job with its state, for reading.';

-- ready, running and scheduled turn over wholly and stay small: vacuum them by count, often, and without pauses.
ALTER TABLE litestar_jobs.ready SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
ALTER TABLE litestar_jobs.running SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
ALTER TABLE litestar_jobs.scheduled SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
-- One row a process, updated every few seconds: room for these updates on their page.
ALTER TABLE litestar_jobs.worker SET (fillfactor = 50);
