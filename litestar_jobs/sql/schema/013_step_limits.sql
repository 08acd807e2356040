-- Steps of workflows may have limits in time. They begin to count when a step waits no more, so until then the step keeps them.
ALTER TABLE litestar_jobs.step
    ADD COLUMN IF NOT EXISTS expires_in float8,
    ADD COLUMN IF NOT EXISTS deadline float8,
    DROP CONSTRAINT IF EXISTS step_limits,
    ADD CONSTRAINT step_limits CHECK (expires_in > 0 AND deadline > 0) NOT VALID;
COMMENT ON COLUMN litestar_jobs.step.expires_in IS 'Seconds in which its job must be begun once it may run.';
COMMENT ON COLUMN litestar_jobs.step.deadline IS 'Seconds in which its job must complete once the step waits no more.';
