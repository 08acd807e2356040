-- Promote: scheduled jobs that are due move to ready.
-- $1 at most so many · $2 channel to notify. Answers how many moved, in how many seconds the next one is due, and which
-- queues are limited: a JSON object of how many of their jobs a worker may have at once, 0 of a paused one.
-- That is asked here because every worker promotes when it starts, when it is told to, and now and then anyway.
WITH due AS MATERIALIZED (
    SELECT ctid AS place FROM litestar_jobs.scheduled
     WHERE run_at <= statement_timestamp()
     ORDER BY run_at
     LIMIT $1::int
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM litestar_jobs.scheduled WHERE ctid = ANY (ARRAY(SELECT place FROM due))
    RETURNING id, queue, priority, run_at, attempts
), moved AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM gone
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, 'ready:' || queue) FROM (SELECT DISTINCT queue FROM gone) AS queues
)
SELECT (SELECT count(*) FROM gone) AS moved, (SELECT count(*) FROM told) AS told,
       (SELECT extract(epoch FROM run_at - statement_timestamp())::float8 FROM litestar_jobs.scheduled
         WHERE run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS next_due,
       (SELECT json_object_agg(name, CASE WHEN paused_at IS NULL THEN concurrency ELSE 0 END)::text
          FROM litestar_jobs.queue WHERE paused_at IS NOT NULL OR concurrency IS NOT NULL) AS limits
