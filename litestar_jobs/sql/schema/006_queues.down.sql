DROP TABLE IF EXISTS litestar_jobs.queue;
