-- Undouble: a job is in one state. A row of an earlier state, beside one of a later state, was written past this library
-- and would fail every batch that moves the job along with others. It goes away; the later state counts.
-- Moves are one statement each, so no snapshot sees a job that is on its way in two places.
-- Looks from running, which is small; one that is waiting and finished is seen once it is claimed. Answers the ids.
WITH doubled AS MATERIALIZED (
    SELECT running.id, EXISTS (SELECT FROM litestar_jobs.finished WHERE finished.id = running.id) AS is_over
      FROM litestar_jobs.running
     WHERE EXISTS (SELECT FROM litestar_jobs.finished WHERE finished.id = running.id)
        OR EXISTS (SELECT FROM litestar_jobs.ready WHERE ready.id = running.id)
        OR EXISTS (SELECT FROM litestar_jobs.scheduled WHERE scheduled.id = running.id)
), waiting AS (
    DELETE FROM litestar_jobs.ready WHERE id = ANY (ARRAY(SELECT id FROM doubled))
), later AS (
    DELETE FROM litestar_jobs.scheduled WHERE id = ANY (ARRAY(SELECT id FROM doubled))
), over AS (
    DELETE FROM litestar_jobs.running WHERE id = ANY (ARRAY(SELECT id FROM doubled WHERE is_over))
)
SELECT id FROM doubled
