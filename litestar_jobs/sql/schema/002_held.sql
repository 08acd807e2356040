-- A fifth state: a job that may not run although its time has come. The reason says why, and who lets it go.

CREATE TABLE IF NOT EXISTS litestar_jobs.held (
    id       uuid        NOT NULL PRIMARY KEY,
    run_at   timestamptz NOT NULL,
    priority smallint    NOT NULL,
    attempts smallint    NOT NULL CHECK (attempts >= 0),
    queue    text        NOT NULL,
    reason   text        NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 100)
);
COMMENT ON TABLE litestar_jobs.held IS 'Jobs that may not run yet, and why.';
CREATE INDEX IF NOT EXISTS held_order ON litestar_jobs.held (reason, priority, run_at, id);

-- At most one row: the suspect whose turn it is, or was last. The key makes it one, whoever writes at the same time.
CREATE TABLE IF NOT EXISTS litestar_jobs.suspect (
    alone       boolean     NOT NULL PRIMARY KEY CHECK (alone),
    id          uuid        NOT NULL,
    released_at timestamptz NOT NULL
);
COMMENT ON TABLE litestar_jobs.suspect IS 'The one job, of those that were lost with their process twice, that may run.';

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
        SELECT job.id, h.queue, job.job_type, job.payload, 'pending', h.attempts, job.max_retries,
               h.priority, h.run_at, NULL, NULL, NULL, job.trace_id, job.created_at
          FROM litestar_jobs.held h JOIN litestar_jobs.job USING (id)
        UNION ALL
        SELECT job.id, r.queue, job.job_type, job.payload, 'running', r.attempt, job.max_retries,
               job.priority, job.run_at, r.started_at, w.expires_at, NULL, job.trace_id, job.created_at
          FROM litestar_jobs.running r JOIN litestar_jobs.job USING (id)
               LEFT JOIN litestar_jobs.worker w ON w.id = r.worker_id
        UNION ALL
        SELECT job.id, job.queue, job.job_type, job.payload, e.status, e.attempts, job.max_retries,
               job.priority, job.run_at, e.started_at, NULL, e.finished_at, job.trace_id, job.created_at
          FROM litestar_jobs.finished e JOIN litestar_jobs.job USING (id)) AS state;
