-- What was said of queues at run time. A queue without a row is neither paused nor bounded.

CREATE TABLE IF NOT EXISTS litestar_jobs.queue (
    name        text        NOT NULL PRIMARY KEY CHECK (char_length(name) BETWEEN 1 AND 100),
    paused_at   timestamptz,
    concurrency integer     CHECK (concurrency BETWEEN 1 AND 10000)
);
COMMENT ON TABLE litestar_jobs.queue IS 'Queues that are, or were, paused or resized at run time.';
COMMENT ON COLUMN litestar_jobs.queue.concurrency IS 'How many jobs of the queue run at once in each worker, at the most.';
