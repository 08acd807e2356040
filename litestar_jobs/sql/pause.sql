-- Pause a schedule: its slots pass by. $1 its name. Answers it if there is one; one that is paused stays as it is.
UPDATE litestar_jobs.schedule
   SET turn = turn + 1, paused_at = COALESCE(paused_at, statement_timestamp())
 WHERE name = $1::text
RETURNING name
