-- Write jobs of which something special is asked; the plain ones go through enqueue.sql and its like.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- Keys of an object: id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at or NULL, delay in
-- seconds, where run_at is NULL; limit_key and concurrency, rate_key, rate and per, where there is a limit or a rate.
-- Answers for each: the id asked for, the id that counts, whether it is new, and the queue in which it may run in so many
-- seconds (NULL: workers need not be told), or the gate at which it waits now. Where the id that counts is NULL nothing was written for a job, which met
-- another transaction and is to be asked for again, in another statement. Ids are text: some drivers give no UUIDs.
WITH asked AS MATERIALIZED (
    SELECT a.id, a.queue, a.job_type, COALESCE(a.payload, 'null') AS payload, a.priority, a.max_retries, a.trace_id,
           a.headers, a.limit_key, a.rate_key, a.concurrency, a.rate, a.per,
           COALESCE(a.run_at, statement_timestamp() + make_interval(secs => a.delay)) AS run_at
      FROM jsonb_to_recordset($1::text::jsonb)
           AS a(id uuid, queue text, job_type text, payload jsonb, priority smallint, max_retries smallint, trace_id text,
                headers jsonb, run_at timestamptz, delay float8, limit_key text, rate_key text, concurrency int, rate int,
                per float8)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    SELECT id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, statement_timestamp()
      FROM asked
), gated AS (
    INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, limit_key, rate_key, concurrency, rate, per FROM asked WHERE COALESCE(limit_key, rate_key) IS NOT NULL
    RETURNING id, reason, key
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, 0, reason, key FROM asked JOIN gated USING (id)
     WHERE run_at <= statement_timestamp()
    RETURNING id, reason || ':' || key AS gate
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked
     WHERE run_at <= statement_timestamp() AND COALESCE(limit_key, rate_key) IS NULL
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT COALESCE(gate, 'ready:' || queue) AS message FROM asked LEFT JOIN kept USING (id)
             WHERE run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
              FROM asked WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
)
SELECT id::text AS asked, id::text AS counts, true AS is_new, CASE WHEN gate IS NULL THEN queue END AS queue,
       extract(epoch FROM run_at - statement_timestamp())::float8 AS delay, gate, (SELECT count(*) FROM told) AS told
  FROM asked LEFT JOIN kept USING (id)
