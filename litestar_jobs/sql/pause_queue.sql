-- Pause a queue: its jobs wait until it is resumed. $1 its name · $2 channel to notify.
-- Answers it if it was not paused. 'due:0' makes every worker promote, and promoting tells it of queues.
WITH paused AS (
    INSERT INTO litestar_jobs.queue AS q (name, paused_at) VALUES ($1::text, statement_timestamp())
    ON CONFLICT (name) DO UPDATE SET paused_at = EXCLUDED.paused_at WHERE q.paused_at IS NULL
    RETURNING name
)
SELECT name, pg_notify($2::text, 'due:0')::text AS told FROM paused
