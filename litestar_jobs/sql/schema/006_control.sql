-- How often the handler of a job has said that it waits. Of what was asked for nothing else is written after the enqueue
-- but by operators; only jobs that snooze pay for it.
ALTER TABLE litestar_jobs.job
    ADD COLUMN IF NOT EXISTS snoozes smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS job_snoozes,
    ADD CONSTRAINT job_snoozes CHECK (snoozes >= 0) NOT VALID;
