-- Fire now: the job of a schedule beside its slots, paused or not.
-- $1 schedule · $2 queue · $3 job type · $4 payload, JSON text · $5 priority · $6 max_retries · $7 job id · $8 trace id
-- $9 headers, JSON text · $10 channel to notify · $11, $12 expires_in and deadline, in seconds or NULL
-- $13, $14 keys of its limit and its rate · $15 its concurrency · $16 so many starts in $17 seconds; NULL without.
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
), gated AS (
    INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, $13::text, $14::text, $15::int, $16::int, $17::float8 FROM written
     WHERE COALESCE($13::text, $14::text) IS NOT NULL
    RETURNING id, reason, key
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, statement_timestamp(), 0, reason, key FROM written JOIN gated USING (id)
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM written WHERE COALESCE($13::text, $14::text) IS NULL
)
SELECT pg_notify($10::text, COALESCE(reason || ':' || key, 'ready:' || queue))::text AS told
  FROM written LEFT JOIN gated USING (id)
