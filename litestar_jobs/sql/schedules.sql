-- Schedules: those of these names, and those that a process has in its code. $1 names
-- $2 seconds without a declaration after which no process has one in its code any more.
SELECT name, job_type, times::text AS times, turn, decided_until, paused_at, last_slot, last_job,
       seen_at >= statement_timestamp() - make_interval(secs => $2::float8) AS in_code, statement_timestamp() AS now
  FROM litestar_jobs.schedule
 WHERE name = ANY ($1::text[]) OR seen_at >= statement_timestamp() - make_interval(secs => $2::float8)
 ORDER BY name
