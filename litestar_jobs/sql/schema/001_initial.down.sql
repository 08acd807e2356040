DROP VIEW IF EXISTS litestar_jobs.jobs;
DROP TABLE IF EXISTS litestar_jobs.worker, litestar_jobs.failure, litestar_jobs.finished, litestar_jobs.running,
    litestar_jobs.ready, litestar_jobs.scheduled, litestar_jobs.job;
DROP SEQUENCE IF EXISTS litestar_jobs.token;
