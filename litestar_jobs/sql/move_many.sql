-- Give those of these jobs that do not run yet another queue or priority. Rows of ready are never updated, so each is
-- deleted and written again; what was asked for changes too, so that it holds for the attempts that follow.
-- $1 ids · $2 queue or NULL · $3 priority or NULL · $4 channel to notify.
-- Answers those that moved, with the queue of those that may run now.
-- Rows that somebody moves at this moment are skipped: two of these never wait for each other.
WITH later AS (
    DELETE FROM litestar_jobs.scheduled
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.scheduled WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, run_at, COALESCE($3::smallint, priority) AS priority, attempts, COALESCE($2::text, queue) AS queue
), now AS (
    DELETE FROM litestar_jobs.ready
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.ready WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, run_at, COALESCE($3::smallint, priority) AS priority, attempts, COALESCE($2::text, queue) AS queue
), kept AS (
    DELETE FROM litestar_jobs.held
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.held WHERE id = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED))
    RETURNING id, run_at, COALESCE($3::smallint, priority) AS priority, attempts, COALESCE($2::text, queue) AS queue, reason,
              key
), later_again AS (
    INSERT INTO litestar_jobs.scheduled (id, run_at, priority, attempts, queue)
    SELECT id, run_at, priority, attempts, queue FROM later
), now_again AS (
    INSERT INTO litestar_jobs.ready (id, run_at, priority, attempts, queue)
    SELECT id, run_at, priority, attempts, queue FROM now
), kept_again AS (
    INSERT INTO litestar_jobs.held (id, run_at, priority, attempts, queue, reason, key)
    SELECT id, run_at, priority, attempts, queue, reason, key FROM kept
), moved AS MATERIALIZED (
    SELECT id, NULL AS queue FROM later UNION ALL SELECT id, queue FROM now UNION ALL SELECT id, NULL FROM kept
), asked AS (
    UPDATE litestar_jobs.job SET queue = COALESCE($2::text, queue), priority = COALESCE($3::smallint, priority)
     WHERE id = ANY (ARRAY(SELECT id FROM moved))
)
SELECT id, queue, CASE WHEN queue IS NOT NULL THEN pg_notify($4::text, 'ready:' || queue)::text END AS told FROM moved
