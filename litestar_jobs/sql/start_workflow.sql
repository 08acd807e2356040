-- Start a workflow: write it, and a job for each of its steps; those that come after others wait.
-- $1 its id · $2 its name · $3 trace id · $4 headers of its jobs, JSON text
-- $5 the steps, JSON array of objects: id, name, position, queue, job_type, payload, priority, max_retries, run_at or NULL,
-- delay in seconds, where run_at is NULL, expires_in and deadline in seconds or NULL, run_when, takes, after (the ids of those
-- that it comes after); limit_key and concurrency, rate_key, rate and per, where there is a limit or a rate
-- $6 channel to notify of it, or NULL: the caller wakes workers after its commit.
-- The delay of a step that waits, and its limits in time, count from the moment at which it waits no more.
WITH asked AS MATERIALIZED (
    SELECT s.id, s.name, s.position, s.queue, s.job_type, COALESCE(s.payload, 'null') AS payload, s.priority, s.max_retries,
           s.delay, s.expires_in, s.deadline, s.run_when, s.takes, s.after, s.limit_key, s.rate_key, s.concurrency, s.rate, s.per,
           cardinality(s.after) AS waits_for,
           COALESCE(s.run_at, statement_timestamp() + make_interval(
               secs => CASE WHEN cardinality(s.after) = 0 THEN s.delay ELSE 0 END)) AS run_at
      FROM json_to_recordset($5::text::json)
           AS s(id uuid, name text, position smallint, queue text, job_type text, payload jsonb, priority smallint,
                max_retries smallint, run_at timestamptz, delay float8, expires_in float8, deadline float8, run_when text,
                takes text, after uuid[], limit_key text, rate_key text, concurrency int, rate int, per float8)
), named AS (
    INSERT INTO litestar_jobs.workflow (id, name, created_at, trace_id)
    VALUES ($1::uuid, $2::text, statement_timestamp(), $3::text)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at, expires_at,
            deadline_at)
    SELECT id, queue, job_type, payload, priority, max_retries, $3::text, $4::text::jsonb, run_at, statement_timestamp(),
           CASE WHEN waits_for = 0 THEN GREATEST(run_at, statement_timestamp()) + make_interval(secs => expires_in) END,
           CASE WHEN waits_for = 0 THEN statement_timestamp() + make_interval(secs => deadline) END
      FROM asked
), steps AS (
    INSERT INTO litestar_jobs.step
           (id, workflow_id, position, name, job_type, run_when, takes, delay, expires_in, deadline, waits_for)
    SELECT id, $1::uuid, position, name, job_type, run_when, takes, delay, expires_in, deadline, waits_for FROM asked
), edges AS (
    INSERT INTO litestar_jobs.edge (upstream, downstream)
    SELECT upstream, id FROM asked CROSS JOIN unnest(after) AS upstream
), gated AS (
    INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, limit_key, rate_key, concurrency, rate, per FROM asked WHERE COALESCE(limit_key, rate_key) IS NOT NULL
    RETURNING id, reason, key
), first AS MATERIALIZED (
    SELECT asked.id, queue, priority, run_at, reason, key, run_at <= statement_timestamp() AS is_due
      FROM asked LEFT JOIN gated USING (id) WHERE waits_for = 0
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, 0, 'workflow', NULL FROM asked WHERE waits_for > 0
    UNION ALL
    SELECT id, queue, priority, run_at, 0, reason, key FROM first WHERE is_due AND key IS NOT NULL
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM first WHERE NOT is_due
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM first WHERE is_due AND key IS NULL
)
SELECT pg_notify($6::text, message)
  FROM (SELECT DISTINCT COALESCE(reason || ':' || key, 'ready:' || queue) AS message FROM first WHERE is_due
        UNION ALL
        SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
          FROM first WHERE NOT is_due HAVING min(run_at) IS NOT NULL) AS news
 WHERE $6::text IS NOT NULL
