-- Write one job, as enqueue.sql writes many: without arrays, which cost a third more.
-- $1 id · $2 queue · $3 job type · $4 payload, JSON text · $5 priority · $6 max_retries · $7 trace id
-- $8 headers, JSON text · $9 run_at or NULL · $10 delay in seconds, where run_at is NULL · $11 channel to notify of it.
WITH written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    VALUES ($1::uuid, $2::text, $3::text, $4::text::jsonb, $5::smallint, $6::smallint, $7::text, $8::text::jsonb,
            COALESCE($9::timestamptz, statement_timestamp() + make_interval(secs => $10::float8)),
            statement_timestamp())
    RETURNING run_at
), later AS (
    INSERT INTO litestar_jobs.scheduled (id, queue, priority, run_at, attempts)
    SELECT $1::uuid, $2::text, $5::smallint, run_at, 0 FROM written WHERE run_at > statement_timestamp()
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT $1::uuid, $2::text, $5::smallint, run_at, 0 FROM written WHERE run_at <= statement_timestamp()
)
SELECT pg_notify($11::text, CASE WHEN run_at <= statement_timestamp() THEN 'ready:' || $2::text
                                 ELSE 'due:' || extract(epoch FROM run_at - statement_timestamp()) END)
  FROM written
