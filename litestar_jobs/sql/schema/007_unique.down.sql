DROP TABLE IF EXISTS litestar_jobs.unique_key;
