-- Hand back: jobs that a worker claimed without ever hearing the answer go back as they came. They were never begun.
-- $1 worker id · $2 the tokens that it knows. Answers what moved. No claim of this worker may be under way meanwhile.
-- Nobody is notified: who asks for this claims next.
WITH gone AS (
    DELETE FROM litestar_jobs.running WHERE worker_id = $1::uuid AND token <> ALL ($2::bigint[])
    RETURNING id, attempt, queue
), back AS MATERIALIZED (
    SELECT gone.id, gone.queue, job.priority, job.run_at, gone.attempt - 1 AS attempts, l.reason, l.key
      FROM gone CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.job WHERE job.id = gone.id OFFSET 0) AS job
      LEFT JOIN LATERAL (SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = gone.id OFFSET 0) AS l ON true
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), attempts FROM back WHERE key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, reason, key FROM back WHERE key IS NOT NULL
)
SELECT id FROM back
