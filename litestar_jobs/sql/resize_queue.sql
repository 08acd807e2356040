-- Resize a queue. $1 its name · $2 how many of its jobs run at once in each worker, at the most; NULL: as many as the
-- worker runs · $3 channel to notify, as in pause_queue.sql. Answers it if that was otherwise.
WITH resized AS (
    INSERT INTO litestar_jobs.queue AS q (name, concurrency) VALUES ($1::text, $2::int)
    ON CONFLICT (name) DO UPDATE SET concurrency = EXCLUDED.concurrency
     WHERE q.concurrency IS DISTINCT FROM EXCLUDED.concurrency
    RETURNING name
)
SELECT name, pg_notify($3::text, 'due:0')::text AS told FROM resized
