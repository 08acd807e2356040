-- Delete completed jobs that have been kept long enough: look at the next ones in the order of their ids.
-- $1 kept for so many seconds · $2 begin after this id · $3 none from this id on · $4 look at so many, at the most.
-- Ids are times of creation (UUIDv7), and what ended before a moment was created before it: so old jobs lie at the
-- beginning of the primary key, and completed ones need no index on the time of their end.
-- Answers how many were seen, the last of them, and how many are gone. Many may run at once.
WITH seen AS MATERIALIZED (
    SELECT id, status, finished_at FROM litestar_jobs.finished
     WHERE id > $2::uuid
       AND id < LEAST((lpad(to_hex((extract(epoch FROM statement_timestamp() - make_interval(secs => $1::float8)) * 1000)::bigint),
                            12, '0') || '7fffbfffffffffffffff')::uuid, $3::uuid)
     ORDER BY id
     LIMIT $4::int
), gone AS (
    DELETE FROM litestar_jobs.finished
     WHERE id = ANY (ARRAY(SELECT id FROM litestar_jobs.finished
                            WHERE id = ANY (ARRAY(SELECT id FROM seen
                                                   WHERE status = 'completed' AND finished_at <= statement_timestamp()
                                                                              - make_interval(secs => $1::float8)))
                              FOR UPDATE SKIP LOCKED))
    RETURNING id
), asked AS (
    DELETE FROM litestar_jobs.job WHERE id = ANY (ARRAY(SELECT id FROM gone))
), noted AS (
    DELETE FROM litestar_jobs.failure WHERE id = ANY (ARRAY(SELECT id FROM gone))
), limited AS (
    DELETE FROM litestar_jobs.limited WHERE id = ANY (ARRAY(SELECT id FROM gone))
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM gone) AS gone
