-- Declare the schedules that a process has in its code, when it starts and again and again.
-- $1 names · $2 their job types · $3 their times, JSON text · $4 whether the process has just started
-- $5 seconds without a declaration after which times are nobody's any more, and $6 after which a schedule is forgotten.
-- A new schedule begins now, and so do changed times: neither is due for the past. While old and new code run side by
-- side, the process that started last decides the times, and the others follow only when nobody has those in its code
-- any more. One that is paused is not forgotten.
WITH forgotten AS (
    DELETE FROM litestar_jobs.schedule
     WHERE seen_at < statement_timestamp() - make_interval(secs => $6::float8) AND paused_at IS NULL
       AND name <> ALL ($1::text[])
)
INSERT INTO litestar_jobs.schedule AS s (name, job_type, times, decided_until, seen_at)
SELECT name, job_type, times::jsonb, statement_timestamp(), statement_timestamp()
  FROM unnest($1::text[], $2::text[], $3::text[]) AS declared(name, job_type, times)
 ORDER BY name
ON CONFLICT (name) DO UPDATE
   SET job_type = EXCLUDED.job_type, times = EXCLUDED.times, seen_at = EXCLUDED.seen_at,
       turn = s.turn + (s.times <> EXCLUDED.times)::int,
       decided_until = CASE WHEN s.times = EXCLUDED.times THEN s.decided_until ELSE EXCLUDED.decided_until END
 WHERE s.times = EXCLUDED.times OR $4::bool OR s.seen_at < statement_timestamp() - make_interval(secs => $5::float8)
