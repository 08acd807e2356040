ALTER TABLE litestar_jobs.failure
    DROP CONSTRAINT IF EXISTS failure_attempt_check,
    ADD CONSTRAINT failure_attempt_check CHECK (attempt > 0) NOT VALID;
ALTER TABLE litestar_jobs.job DROP COLUMN IF EXISTS expires_at, DROP COLUMN IF EXISTS deadline_at;
DROP FUNCTION IF EXISTS litestar_jobs.new_id();
ALTER TABLE litestar_jobs.job DROP CONSTRAINT IF EXISTS job_snoozes, DROP COLUMN IF EXISTS snoozes;
