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
