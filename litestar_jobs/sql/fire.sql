-- Fire: slots of a schedule that are due are decided and their jobs written in one statement, so that each slot is
-- decided once, whatever races and crashes there are.
-- $1 schedule · $2 its turn and $3 its times, JSON text, from which the slots were taken · $4 the newest slot that is
-- decided by this, in any case in the past · $5 whether it must not overlap: then no job is written while one is
-- unfinished · $6 queue · $7 job type · $8 payload, JSON text · $9 priority · $10 max_retries
-- $11 job ids · $12 their slots · $13 trace ids · $14 headers, JSON text · $15 channel to notify.
-- In ready, a job's time is now: behind a slot of some seconds ago others may have been claimed already.
-- Answers whether it overlapped; nothing if another process had its turn.
WITH seen AS MATERIALIZED (
    SELECT name, $5::bool AND EXISTS (
               SELECT FROM unnest(unfinished) AS open(id)
                WHERE EXISTS (SELECT FROM litestar_jobs.job WHERE job.id = open.id)
                  AND NOT EXISTS (SELECT FROM litestar_jobs.finished WHERE finished.id = open.id)) AS busy
      FROM litestar_jobs.schedule
     WHERE name = $1::text AND turn = $2::bigint AND times = $3::text::jsonb AND paused_at IS NULL
       AND decided_until < $4::timestamptz AND $4::timestamptz <= statement_timestamp()
), decided AS (
    UPDATE litestar_jobs.schedule AS s
       SET turn = s.turn + 1, decided_until = $4::timestamptz,
           last_slot = CASE WHEN busy THEN last_slot ELSE COALESCE(($12::timestamptz[])[cardinality($12)], last_slot) END,
           last_job = CASE WHEN busy THEN last_job ELSE COALESCE(($11::uuid[])[cardinality($11)], last_job) END,
           unfinished = CASE WHEN busy THEN unfinished WHEN $5::bool THEN $11::uuid[] ELSE '{}' END
      FROM seen
     WHERE s.name = seen.name AND s.turn = $2::bigint
    RETURNING seen.busy
), written AS (
    INSERT INTO litestar_jobs.job
           (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)
    SELECT new.id, $6::text, $7::text, $8::text::jsonb, $9::smallint, $10::smallint, new.trace_id, new.headers::jsonb,
           new.slot, statement_timestamp()
      FROM decided
     CROSS JOIN unnest($11::uuid[], $12::timestamptz[], $13::text[], $14::text[]) AS new(id, slot, trace_id, headers)
     WHERE NOT busy
    RETURNING id, queue, priority
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp(), 0 FROM written
)
SELECT busy, (SELECT pg_notify($15::text, 'ready:' || queue)::text FROM written LIMIT 1) AS told FROM decided
