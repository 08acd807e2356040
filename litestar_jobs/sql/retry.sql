-- Run a failed or cancelled job again, with all its attempts anew, and without the time limits that it had; one with a
-- limit or a rate waits at its first gate.
-- $1 its id · $2 channel to notify.
-- Answers its queue if it moved.
WITH gone AS (
    DELETE FROM litestar_jobs.finished WHERE id = $1::uuid AND status IN ('failed', 'cancelled') RETURNING id
), anew AS (
    UPDATE litestar_jobs.job SET snoozes = 0, expires_at = NULL, deadline_at = NULL
     WHERE id = ANY (ARRAY(SELECT id FROM gone))
       AND (snoozes > 0 OR expires_at IS NOT NULL OR deadline_at IS NOT NULL)
), again AS MATERIALIZED (
    SELECT job.id, job.queue, job.priority, l.reason, l.key
      FROM gone JOIN litestar_jobs.job USING (id) LEFT JOIN litestar_jobs.limited l USING (id)
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM again WHERE key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, statement_timestamp(), 0, reason, key FROM again WHERE key IS NOT NULL
)
SELECT queue, pg_notify($2::text, COALESCE(reason || ':' || key, 'ready:' || queue))::text AS told FROM again
