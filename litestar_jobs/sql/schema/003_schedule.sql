-- Periodic jobs. A row remembers of a schedule what the code cannot know: up to where its slots are decided. Every move
-- of it makes its turn one more, and holds only for the turn that was seen before.

CREATE TABLE IF NOT EXISTS litestar_jobs.schedule (
    name          text        NOT NULL PRIMARY KEY CHECK (char_length(name) BETWEEN 1 AND 301),
    job_type      text        NOT NULL CHECK (char_length(job_type) BETWEEN 1 AND 200),
    times         jsonb       NOT NULL,
    turn          bigint      NOT NULL DEFAULT 0,
    decided_until timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,
    paused_at     timestamptz,
    last_slot     timestamptz,
    last_job      uuid,
    unfinished    uuid[]      NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
COMMENT ON TABLE litestar_jobs.schedule IS 'Schedules of periodic jobs, and up to where their slots are decided.';
COMMENT ON COLUMN litestar_jobs.schedule.seen_at IS 'When a live worker last had it in its code, nearly.';
COMMENT ON COLUMN litestar_jobs.schedule.unfinished IS
    'Of one that does not overlap, the jobs that had not finished when it was last looked at.';
