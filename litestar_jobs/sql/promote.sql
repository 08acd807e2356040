-- Promote: scheduled jobs that are due move to ready.
-- $1 at most so many · $2 channel to notify. Answers how many moved, and in how many seconds the next one is due.
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
         WHERE run_at > statement_timestamp() ORDER BY run_at LIMIT 1) AS next_due
