-- Change pending jobs: what is asked of them and when they run (replace), or only when they run.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- Keys of an object: id, run_at or NULL, delay in seconds, where run_at is NULL, replace, and to replace: queue, payload,
-- priority, max_retries; expires_in and deadline in seconds or NULL, which count anew; limit_key and concurrency,
-- rate_key, rate and per, where there is a limit or a rate.
-- Answers those that were changed, with the queue in which they may run in so many seconds, or the gate at which they
-- wait now: one with a limit or a rate begins again at its first gate. Both are NULL of one that is held otherwise.
-- A job is deleted from where it waits, as a claim does, and written again: whoever of the two comes second finds
-- nothing, and a claim sees all of the change or none. One that does not wait any more is left as it is. What was let
-- through for a start that never was gives it back, as in cancel.sql.
WITH change AS MATERIALIZED (
    SELECT c.id, c.replace, c.queue, COALESCE(c.payload, 'null') AS payload, c.priority, c.max_retries,
           c.limit_key, c.rate_key, c.concurrency, c.rate, c.per,
           COALESCE(c.run_at, statement_timestamp() + make_interval(secs => c.delay)) AS run_at,
           make_interval(secs => c.expires_in) AS expires_in, make_interval(secs => c.deadline) AS deadline
      FROM jsonb_to_recordset($1::text::jsonb)
           AS c(id uuid, replace boolean, queue text, payload jsonb, priority smallint, max_retries smallint,
                run_at timestamptz, delay float8, expires_in float8, deadline float8,
                limit_key text, rate_key text, concurrency int, rate int, per float8)
), from_later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, NULL AS reason
), from_now AS (
    DELETE FROM litestar_jobs.ready WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, NULL AS reason
), unused AS (
    DELETE FROM litestar_jobs.pass WHERE ctid = ANY (ARRAY(
        SELECT pass.place FROM from_now
         CROSS JOIN LATERAL (SELECT rate_key FROM litestar_jobs.limited WHERE limited.id = from_now.id OFFSET 0) AS l
         CROSS JOIN LATERAL (
            SELECT p.ctid AS place FROM litestar_jobs.pass p
             WHERE p.reason = 'rate' AND p.key = l.rate_key AND p.id = from_now.id AND p.started_at IS NULL
            OFFSET 0) AS pass))
), from_held AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(SELECT id FROM change))
    RETURNING id, priority, attempts, queue, CASE WHEN key IS NULL THEN reason END
), changed AS MATERIALIZED (
    SELECT id, change.replace, change.payload, change.max_retries, change.run_at, was.reason,
           GREATEST(change.run_at, statement_timestamp()) + change.expires_in AS expires_at,
           statement_timestamp() + change.deadline AS deadline_at,
           CASE WHEN change.replace THEN change.priority ELSE was.priority END AS priority,
           CASE WHEN change.replace THEN 0 ELSE was.attempts END AS attempts,
           CASE WHEN change.replace THEN change.queue ELSE was.queue END AS queue
      FROM change JOIN (TABLE from_later UNION ALL TABLE from_now UNION ALL TABLE from_held) AS was USING (id)
), gated AS (
    INSERT INTO litestar_jobs.limited AS l (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, limit_key, rate_key, concurrency, rate, per FROM changed JOIN change USING (id)
     WHERE change.replace AND COALESCE(limit_key, rate_key) IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET limit_key = EXCLUDED.limit_key, rate_key = EXCLUDED.rate_key,
                                   concurrency = EXCLUDED.concurrency, rate = EXCLUDED.rate, per = EXCLUDED.per
    RETURNING id, reason, key
), ungated AS (
    DELETE FROM litestar_jobs.limited WHERE id = ANY (ARRAY(
        SELECT id FROM changed JOIN change USING (id) WHERE change.replace AND COALESCE(limit_key, rate_key) IS NULL))
), placed AS MATERIALIZED (
    SELECT changed.*, COALESCE(gated.reason, l.reason) AS gate, COALESCE(gated.key, l.key) AS key
      FROM changed LEFT JOIN gated USING (id) LEFT JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.limited WHERE limited.id = changed.id AND NOT changed.replace
        OFFSET 0) AS l ON true
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
    SELECT id, queue, priority, run_at, attempts FROM placed
     WHERE reason IS NULL AND key IS NULL AND run_at <= statement_timestamp()
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, gate, key FROM placed
     WHERE reason IS NULL AND key IS NOT NULL AND run_at <= statement_timestamp()
    RETURNING id, reason || ':' || key AS gate
), held_on AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason)
    SELECT id, queue, priority, run_at, attempts, reason FROM changed WHERE reason IS NOT NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT COALESCE(gate, 'ready:' || queue) AS message FROM changed LEFT JOIN kept USING (id)
             WHERE reason IS NULL AND run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp()) FROM changed
             WHERE reason IS NULL AND run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
)
SELECT id::text AS id, CASE WHEN reason IS NULL AND gate IS NULL THEN queue END AS queue, gate,
       extract(epoch FROM run_at - statement_timestamp())::float8 AS delay, (SELECT count(*) FROM told) AS told
  FROM changed LEFT JOIN kept USING (id)
