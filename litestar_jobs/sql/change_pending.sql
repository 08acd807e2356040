-- Change pending jobs: what is asked of them and when they run (replace), or only when they run.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- Keys of an object: id, run_at or NULL, delay in seconds, where run_at is NULL, replace, and to replace: queue, payload,
-- priority, max_retries; expires_in and deadline in seconds or NULL, which count anew.
-- Answers those that were changed, with the queue in which they may run in so many seconds (NULL: one that is held).
-- A job is deleted from where it waits, as a claim does, and written again: whoever of the two comes second finds
-- nothing, and a claim sees all of the change or none. One that does not wait any more is left as it is.
WITH change AS MATERIALIZED (
    SELECT c.id, c.replace, c.queue, COALESCE(c.payload, 'null') AS payload, c.priority, c.max_retries,
           COALESCE(c.run_at, statement_timestamp() + make_interval(secs => c.delay)) AS run_at,
           make_interval(secs => c.expires_in) AS expires_in, make_interval(secs => c.deadline) AS deadline
      FROM jsonb_to_recordset($1::text::jsonb)
           AS c(id uuid, replace boolean, queue text, payload jsonb, priority smallint, max_retries smallint,
                run_at timestamptz, delay float8, expires_in float8, deadline float8)
), from_later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, NULL AS reason
), from_now AS (
    DELETE FROM litestar_jobs.ready WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, NULL AS reason
), from_held AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, reason
), changed AS MATERIALIZED (
    SELECT id, change.replace, change.payload, change.max_retries, change.run_at, was.reason,
           GREATEST(change.run_at, statement_timestamp()) + change.expires_in AS expires_at,
           statement_timestamp() + change.deadline AS deadline_at,
           CASE WHEN change.replace THEN change.priority ELSE was.priority END AS priority,
           CASE WHEN change.replace THEN 0 ELSE was.attempts END AS attempts,
           CASE WHEN change.replace THEN change.queue ELSE was.queue END AS queue
      FROM change JOIN (TABLE from_later UNION ALL TABLE from_now UNION ALL TABLE from_held) AS was USING (id)
), asked AS (
    UPDATE litestar_jobs.job
       SET payload = CASE WHEN changed.replace THEN changed.payload ELSE job.payload END,
           max_retries = CASE WHEN changed.replace THEN changed.max_retries ELSE job.max_retries END,
           priority = changed.priority, queue = changed.queue, run_at = changed.run_at,
           expires_at = changed.expires_at, deadline_at = changed.deadline_at
      FROM changed
     WHERE job.id = changed.id AND job.id = ANY (ARRAY(SELECT id FROM changed))
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM changed WHERE reason IS NULL AND run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, attempts FROM changed WHERE reason IS NULL AND run_at <= statement_timestamp()
), held_on AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason)
    SELECT id, queue, priority, run_at, attempts, reason FROM changed WHERE reason IS NOT NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT 'ready:' || queue AS message FROM changed
             WHERE reason IS NULL AND run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp()) FROM changed
             WHERE reason IS NULL AND run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
)
SELECT id::text AS id, CASE WHEN reason IS NULL THEN queue END AS queue,
       extract(epoch FROM run_at - statement_timestamp())::float8 AS delay, (SELECT count(*) FROM told) AS told
  FROM changed
