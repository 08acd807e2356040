-- Release: the next suspect may run, when the one before it neither waits nor runs any more.
-- $1 queues that the caller takes jobs of · $2 patience in seconds: the longest time that one keeps the others waiting
-- $3 channel to notify.
-- Many may try at once: the row of suspect goes from one to the next by comparison with what was seen, and only once.
-- Answers the job that was released, and without one a row of NULLs while suspects wait, or nothing.
WITH over AS MATERIALIZED (
    SELECT s.id, s.released_at FROM litestar_jobs.suspect s
     WHERE s.released_at < statement_timestamp() - make_interval(secs => $2::float8)
        OR NOT EXISTS (SELECT FROM litestar_jobs.ready WHERE ready.id = s.id)
           AND NOT EXISTS (SELECT FROM litestar_jobs.running WHERE running.id = s.id)
), next AS MATERIALIZED (
    SELECT id FROM litestar_jobs.held
     WHERE reason = 'suspect' AND queue = ANY ($1::text[])
     ORDER BY priority, run_at, id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
), turn AS (
    INSERT INTO litestar_jobs.suspect (alone, id, released_at)
    SELECT true, id, clock_timestamp() FROM next
    ON CONFLICT (alone) DO UPDATE SET id = EXCLUDED.id, released_at = EXCLUDED.released_at
     WHERE (suspect.id, suspect.released_at) IN (SELECT id, released_at FROM over)
    RETURNING id
), gone AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM turn))
    RETURNING id, queue, priority, run_at, attempts
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM gone
)
SELECT gone.id, job.job_type, gone.queue, job.trace_id, pg_notify($3::text, 'ready:' || gone.queue)::text AS told
  FROM next LEFT JOIN (gone JOIN litestar_jobs.job ON job.id = gone.id) ON true
