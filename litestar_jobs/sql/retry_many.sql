-- Run those of these jobs again that ended with one of these statuses, with all their attempts anew;
-- one with a limit or a rate waits at its first gate.
-- $1 ids · $2 statuses, of failed and cancelled · $3 channel to notify. Answers those that moved, with their queues.
-- Rows that somebody moves at this moment are skipped: two of these never wait for each other.
WITH gone AS (
    DELETE FROM litestar_jobs.finished
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.finished
                            WHERE id = ANY ($1::uuid[]) AND status = ANY ($2::text[]) FOR UPDATE SKIP LOCKED))
    RETURNING id
), anew AS (
    UPDATE litestar_jobs.job SET snoozes = 0, expires_at = NULL, deadline_at = NULL
     WHERE id = ANY (ARRAY(SELECT id FROM gone))
       AND (snoozes > 0 OR expires_at IS NOT NULL OR deadline_at IS NOT NULL)
), again AS MATERIALIZED (
    SELECT job.id, job.queue, job.priority, l.reason, l.key FROM litestar_jobs.job LEFT JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = job.id OFFSET 0) AS l ON true
     WHERE job.id = ANY (ARRAY(SELECT id FROM gone))
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM again WHERE key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, statement_timestamp(), 0, reason, key FROM again WHERE key IS NOT NULL
)
SELECT id, queue, pg_notify($3::text, COALESCE(reason || ':' || key, 'ready:' || queue))::text AS told FROM again
