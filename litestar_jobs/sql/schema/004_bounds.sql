-- Values that no worker could read or move on would stop the jobs beside them, whoever wrote them: times that Python
-- does not have, and attempts that cannot be counted any further. The constraints hold for what is written from now on.

ALTER TABLE litestar_jobs.job
    DROP CONSTRAINT IF EXISTS job_bounds,
    ADD CONSTRAINT job_bounds CHECK (max_retries <= 10000
        AND run_at BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00'
        AND created_at BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00') NOT VALID;
ALTER TABLE litestar_jobs.scheduled
    DROP CONSTRAINT IF EXISTS scheduled_bounds,
    ADD CONSTRAINT scheduled_bounds CHECK (attempts <= 20000
        AND run_at BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00') NOT VALID;
ALTER TABLE litestar_jobs.ready
    DROP CONSTRAINT IF EXISTS ready_bounds,
    ADD CONSTRAINT ready_bounds CHECK (attempts <= 20000
        AND run_at BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00') NOT VALID;
