DROP FUNCTION IF EXISTS litestar_jobs.new_id();
ALTER TABLE litestar_jobs.job DROP CONSTRAINT IF EXISTS job_snoozes, DROP COLUMN IF EXISTS snoozes;
