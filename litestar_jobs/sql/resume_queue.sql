-- Resume a queue that is paused. $1 its name · $2 channel to notify, as in pause_queue.sql. Answers it if it was paused.
WITH resumed AS (
    UPDATE litestar_jobs.queue SET paused_at = NULL WHERE name = $1::text AND paused_at IS NOT NULL
    RETURNING name
)
SELECT name, pg_notify($2::text, 'due:0')::text AS told FROM resumed
