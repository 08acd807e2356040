-- How often the handler of a job has said that it waits. Of what was asked for nothing else is written after the enqueue
-- but by operators; only jobs that snooze pay for it.
ALTER TABLE litestar_jobs.job
    ADD COLUMN IF NOT EXISTS snoozes smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS job_snoozes,
    ADD CONSTRAINT job_snoozes CHECK (snoozes >= 0) NOT VALID;

-- An id as the library makes them: a UUID of version 7, so that jobs which the database enqueues by itself stand in order.
CREATE OR REPLACE FUNCTION litestar_jobs.new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $new_id$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$new_id$;

-- Until when a job must have been started, and until when it must have completed. Those without have no entry in these
-- indexes, and pay nothing.
ALTER TABLE litestar_jobs.job
    ADD COLUMN IF NOT EXISTS expires_at timestamptz,
    ADD COLUMN IF NOT EXISTS deadline_at timestamptz;
CREATE INDEX IF NOT EXISTS job_expires ON litestar_jobs.job (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS job_deadline ON litestar_jobs.job (deadline_at, id) WHERE deadline_at IS NOT NULL;

-- A job can end before its first attempt, and why is kept with the others: as attempt 0.
ALTER TABLE litestar_jobs.failure
    DROP CONSTRAINT IF EXISTS failure_attempt_check,
    ADD CONSTRAINT failure_attempt_check CHECK (attempt >= 0) NOT VALID;
