-- Write jobs of which something special is asked; the plain ones go through enqueue.sql and its like.
-- $1 JSON array of objects, one a job · $2 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- Keys of an object: id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at or NULL, delay in
-- seconds, where run_at is NULL, expires_in and deadline in seconds or NULL: the one counts from when the job may run, the
-- other from now.
-- Answers for each: the id asked for, the id that counts, whether it is new, and the queue in which it may run in so many
-- seconds (NULL: workers need not be told). Where the id that counts is NULL nothing was written for a job, which met
-- another transaction and is to be asked for again, in another statement. Ids are text: some drivers give no UUIDs.
WITH asked AS MATERIALIZED (
    SELECT a.id, a.queue, a.job_type, COALESCE(a.payload, 'null') AS payload, a.priority, a.max_retries, a.trace_id,
           a.headers, COALESCE(a.run_at, statement_timestamp() + make_interval(secs => a.delay)) AS run_at,
           a.expires_in, a.deadline
      FROM jsonb_to_recordset($1::text::jsonb)
           AS a(id uuid, queue text, job_type text, payload jsonb, priority smallint, max_retries smallint, trace_id text,
                headers jsonb, run_at timestamptz, delay float8, expires_in float8, deadline float8)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at, expires_at,
            deadline_at)
    SELECT id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, statement_timestamp(),
           GREATEST(run_at, statement_timestamp()) + make_interval(secs => expires_in),
           statement_timestamp() + make_interval(secs => deadline)
      FROM asked
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked WHERE run_at <= statement_timestamp()
), told AS MATERIALIZED (
    SELECT pg_notify($2::text, message)
      FROM (SELECT DISTINCT 'ready:' || queue AS message FROM asked WHERE run_at <= statement_timestamp()
            UNION ALL
            SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
              FROM asked WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
     WHERE $2 IS NOT NULL
)
SELECT id::text AS asked, id::text AS counts, true AS is_new, queue,
       extract(epoch FROM run_at - statement_timestamp())::float8 AS delay, (SELECT count(*) FROM told) AS told
  FROM asked
