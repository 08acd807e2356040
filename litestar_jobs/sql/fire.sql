-- Fire: slots of a schedule that are due are decided and their jobs written in one statement, so that each slot is
-- decided once, whatever races and crashes there are.
-- $1 schedule · $2 its turn when the slots were taken from it: whatever else changes a schedule makes it another
-- $3 the newest slot that is decided by this · $4 whether it must not overlap: then no job is written while one is
-- unfinished · $5 queue · $6 job type · $7 payload, JSON text · $8 priority · $9 max_retries
-- $10 job ids · $11 their slots, in order · $12 trace ids · $13 headers, JSON text · $14 channel to notify
-- $15, $16 expires_in and deadline, in seconds or NULL
-- $17, $18 keys of its limit and its rate · $19 its concurrency · $20 so many starts in $21 seconds; NULL without.
-- In ready, a job's time is now: behind a slot of some seconds ago others may have been claimed already.
-- Answers whether a job was unfinished; nothing if another process had the turn.
WITH seen AS MATERIALIZED (
    SELECT name, $4::bool AND EXISTS (
               SELECT FROM unnest(unfinished) AS open(id)
                WHERE EXISTS (SELECT FROM litestar_jobs.job WHERE job.id = open.id)
                  AND NOT EXISTS (SELECT FROM litestar_jobs.finished WHERE finished.id = open.id)) AS busy
      FROM litestar_jobs.schedule WHERE name = $1::text
), decided AS (
    UPDATE litestar_jobs.schedule AS s
       SET turn = s.turn + 1, decided_until = $3::timestamptz,
           last_slot = CASE WHEN busy THEN last_slot ELSE COALESCE(($11::timestamptz[])[cardinality($11)], last_slot) END,
           last_job = CASE WHEN busy THEN last_job ELSE COALESCE(($10::uuid[])[cardinality($10)], last_job) END,
           unfinished = CASE WHEN busy THEN unfinished WHEN $4::bool THEN $10::uuid[] ELSE '{}' END
      FROM seen
     WHERE s.name = seen.name AND s.turn = $2::bigint
    RETURNING busy
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at, expires_at,
            deadline_at)
    SELECT new.id, $5::text, $6::text, $7::text::jsonb, $8::smallint, $9::smallint, new.trace_id, new.headers::jsonb,
           new.slot, statement_timestamp(), statement_timestamp() + make_interval(secs => $15::float8),
           statement_timestamp() + make_interval(secs => $16::float8)
      FROM decided
     CROSS JOIN unnest($10::uuid[], $11::timestamptz[], $12::text[], $13::text[]) AS new(id, slot, trace_id, headers)
     WHERE NOT busy
    RETURNING id, queue, priority
), gated AS (
    INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
    SELECT id, $17::text, $18::text, $19::int, $20::int, $21::float8 FROM written
     WHERE COALESCE($17::text, $18::text) IS NOT NULL
    RETURNING id, reason, key
), kept AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, statement_timestamp(), 0, reason, key FROM written JOIN gated USING (id)
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM written WHERE COALESCE($17::text, $18::text) IS NULL
)
SELECT busy, (SELECT pg_notify($14::text, COALESCE(reason || ':' || key, 'ready:' || queue))::text
                FROM written LEFT JOIN gated USING (id) LIMIT 1) AS told FROM decided
