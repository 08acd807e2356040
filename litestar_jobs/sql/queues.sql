-- Queues that are paused or bounded.
SELECT name, paused_at, concurrency FROM litestar_jobs.queue
 WHERE paused_at IS NOT NULL OR concurrency IS NOT NULL ORDER BY name
