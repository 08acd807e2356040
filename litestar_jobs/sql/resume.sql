-- Resume a schedule that is paused: it is due again from now on, and not for what passed by. $1 its name.
-- Answers it if there is one; one that is not paused stays as it is.
UPDATE litestar_jobs.schedule
   SET turn = turn + 1, paused_at = NULL,
       decided_until = CASE WHEN paused_at IS NULL THEN decided_until ELSE statement_timestamp() END
 WHERE name = $1::text
RETURNING name
