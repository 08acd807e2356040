-- Fire now: the job of a schedule beside its slots, paused or not.
-- $1 schedule · $2 queue · $3 job type · $4 payload, JSON text · $5 priority · $6 max_retries · $7 job id · $8 trace id
-- $9 headers, JSON text · $10 channel to notify · $11, $12 expires_in and deadline, in seconds or NULL.
-- It is one more that a schedule which does not overlap waits for. Answers nothing if there is no such schedule.
WITH noted AS (
    UPDATE litestar_jobs.schedule
       SET turn = turn + 1, last_job = $7::uuid, unfinished = unfinished || $7::uuid
     WHERE name = $1::text
    RETURNING name
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at, expires_at,
            deadline_at)
    SELECT $7::uuid, $2::text, $3::text, $4::text::jsonb, $5::smallint, $6::smallint, $8::text, $9::text::jsonb,
           statement_timestamp(), statement_timestamp(),
           statement_timestamp() + make_interval(secs => $11::float8),
           statement_timestamp() + make_interval(secs => $12::float8)
      FROM noted
    RETURNING id, queue, priority
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM written
)
SELECT pg_notify($10::text, 'ready:' || queue)::text AS told FROM written
