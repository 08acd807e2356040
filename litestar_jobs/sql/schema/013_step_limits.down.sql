ALTER TABLE litestar_jobs.step DROP COLUMN IF EXISTS expires_in, DROP COLUMN IF EXISTS deadline;
