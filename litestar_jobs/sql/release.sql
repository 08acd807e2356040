-- Release: the next suspect may run, when the one before it neither waits, also at a gate, nor runs any more.
-- $1 queues that the caller takes jobs of · $2 patience in seconds: the longest time that one keeps the others waiting
-- $3 channel to notify.
-- Many may try at once: the row of suspect goes from one to the next by comparison with what was seen, and only once.
-- Answers the job that was released, and without one a row of NULLs while suspects wait, or nothing.
WITH over AS MATERIALIZED (
    SELECT s.id, s.released_at FROM litestar_jobs.suspect s
     WHERE s.released_at < statement_timestamp() - make_interval(secs => $2::float8)
        OR NOT EXISTS (SELECT FROM litestar_jobs.ready WHERE ready.id = s.id)
           AND NOT EXISTS (SELECT FROM litestar_jobs.running WHERE running.id = s.id)
           AND NOT EXISTS (SELECT FROM litestar_jobs.held WHERE held.id = s.id AND held.key IS NOT NULL)
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
), let AS MATERIALIZED (
    SELECT gone.*, l.reason, l.key, job.job_type, job.trace_id
      FROM gone JOIN litestar_jobs.job USING (id) LEFT JOIN litestar_jobs.limited l USING (id)
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM let WHERE key IS NULL
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, reason, key FROM let WHERE key IS NOT NULL
)
SELECT let.id, let.job_type, let.queue, let.trace_id,
       pg_notify($3::text, COALESCE(let.reason || ':' || let.key, 'ready:' || let.queue))::text AS told
  FROM next LEFT JOIN let ON true
