-- Promote: scheduled jobs that are due move to ready; those with a limit or a rate to held, at their first gate.
-- $1 at most so many · $2 channel to notify. Answers how many moved, in how many seconds the next one is due, whether some
-- wait at a gate, and which queues are limited: a JSON object of how many of their jobs a worker may have at once, 0 of
-- a paused one. That is asked here because every worker promotes when it starts, when it is told to, and now and then anyway.
WITH due AS MATERIALIZED (
    SELECT ctid AS place FROM litestar_jobs.scheduled
     WHERE run_at <= statement_timestamp()
     ORDER BY run_at
     LIMIT $1::int
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM litestar_jobs.scheduled WHERE ctid = ANY (ARRAY(SELECT place FROM due))
    RETURNING id, queue, priority, run_at, attempts
), due_now AS MATERIALIZED (
    SELECT gone.*, l.reason, l.key FROM gone LEFT JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = gone.id OFFSET 0) AS l ON true
), moved AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM due_now WHERE key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, reason, key FROM due_now WHERE key IS NOT NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT COALESCE(reason || ':' || key, 'ready:' || queue) AS message FROM due_now) AS news
)
SELECT (SELECT count(*) FROM gone) AS moved, (SELECT count(*) FROM told) AS told,
       (SELECT extract(epoch FROM run_at - statement_timestamp())::float8 FROM litestar_jobs.scheduled
         WHERE run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS next_due,
       EXISTS (SELECT FROM litestar_jobs.held WHERE reason = ANY ('{limit,rate}')) AS gated,
       (SELECT json_object_agg(name, CASE WHEN paused_at IS NULL THEN concurrency ELSE 0 END)::text
          FROM litestar_jobs.queue WHERE paused_at IS NOT NULL OR concurrency IS NOT NULL) AS limits
