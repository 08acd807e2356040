-- Write jobs: what was asked for, and whether each may run now or later.
-- $1 ids · $2 queues · $3 job types · $4 payloads, JSON text · $5 priorities · $6 max_retries · $7 trace ids
-- $8 headers, JSON text · $9 run_at or NULL · $10 delays in seconds, where run_at is NULL
-- $11 channel to notify of it.
-- Payloads go through text, because a jsonb codec of the user's would encode them once more.
-- statement_timestamp: in a transaction that is long open, a delay counts from the call.
WITH asked AS MATERIALIZED (
    SELECT a.id, a.queue, a.job_type, a.payload::jsonb AS payload, a.priority, a.max_retries, a.trace_id,
           a.headers::jsonb AS headers,
           COALESCE(a.run_at, statement_timestamp() + make_interval(secs => a.delay)) AS run_at
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::smallint[], $7::text[],
                  $8::text[], $9::timestamptz[], $10::float8[])
           AS a(id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, delay)
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    SELECT id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, statement_timestamp()
      FROM asked
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, run_at, 0 FROM asked WHERE run_at <= statement_timestamp()
)
SELECT pg_notify($11::text, message)
  FROM (SELECT DISTINCT 'ready:' || queue AS message FROM asked WHERE run_at <= statement_timestamp()
        UNION ALL
        SELECT 'due:' || extract(epoch FROM min(run_at) - statement_timestamp())
          FROM asked WHERE run_at > statement_timestamp() HAVING min(run_at) IS NOT NULL) AS news
