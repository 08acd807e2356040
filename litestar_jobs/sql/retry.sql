-- Run a failed or cancelled job again, with all its attempts anew, and without the limits that it had. $1 its id · $2 channel to notify.
-- Answers its queue if it moved.
WITH gone AS (
    DELETE FROM litestar_jobs.finished WHERE id = $1::uuid AND status IN ('failed', 'cancelled') RETURNING id
), anew AS (
    UPDATE litestar_jobs.job SET snoozes = 0, expires_at = NULL, deadline_at = NULL
     WHERE id = ANY (ARRAY(SELECT id FROM gone))
       AND (snoozes > 0 OR expires_at IS NOT NULL OR deadline_at IS NOT NULL)
), again AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT job.id, job.queue, job.priority, statement_timestamp(), 0 FROM gone JOIN litestar_jobs.job USING (id)
    RETURNING queue
)
SELECT queue, pg_notify($2::text, 'ready:' || queue)::text AS told FROM again
