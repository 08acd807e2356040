-- Unique jobs. Whether a key is still held is never written here: it is judged from the state of its job when another
-- asks for it, so that jobs pay nothing for it while they run.

CREATE TABLE IF NOT EXISTS litestar_jobs.unique_key (
    key        uuid        NOT NULL PRIMARY KEY,
    id         uuid        NOT NULL,
    follows    uuid        CHECK (follows <> id),
    kept_until timestamptz CHECK (kept_until BETWEEN '0001-01-02 00:00:00+00' AND '9999-12-30 00:00:00+00'),
    until      text        NOT NULL CHECK (until IN ('started', 'finished'))
) WITH (fillfactor = 70);
COMMENT ON TABLE litestar_jobs.unique_key IS 'Keys of unique jobs, each with the job that had it last.';
COMMENT ON COLUMN litestar_jobs.unique_key.follows IS 'The job that had it before, and was seen not to hold it any more.';
COMMENT ON COLUMN litestar_jobs.unique_key.kept_until IS 'It is held until then whatever becomes of the job.';

ALTER TABLE litestar_jobs.unique_key SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
