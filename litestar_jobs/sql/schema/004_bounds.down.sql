ALTER TABLE litestar_jobs.job DROP CONSTRAINT IF EXISTS job_bounds;
ALTER TABLE litestar_jobs.scheduled DROP CONSTRAINT IF EXISTS scheduled_bounds;
ALTER TABLE litestar_jobs.ready DROP CONSTRAINT IF EXISTS ready_bounds;
