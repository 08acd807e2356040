-- Delete keys that nobody needs any more: their jobs have ended, or are deleted, and nothing else keeps them.
-- $1 begin after this key · $2 look at so many, at the most.
-- Answers how many were seen, the last of them, and how many are gone. Many may run at once: rows that somebody has locked
-- are skipped, and so is a key that another job has taken meanwhile, which this statement does not see.
WITH seen AS MATERIALIZED (
    SELECT key, id, kept_until FROM litestar_jobs.unique_key WHERE key > $1::uuid ORDER BY key LIMIT $2::int
), over AS MATERIALIZED (
    SELECT key, id FROM seen
     WHERE (kept_until > statement_timestamp()) IS NOT TRUE
       AND ((SELECT true FROM litestar_jobs.finished WHERE finished.id = seen.id)
            OR (SELECT true FROM litestar_jobs.job WHERE job.id = seen.id) IS NULL)
), gone AS (
    DELETE FROM litestar_jobs.unique_key
     WHERE ctid = ANY (ARRAY(SELECT k.ctid FROM litestar_jobs.unique_key k JOIN over ON over.key = k.key AND over.id = k.id
                              WHERE k.key = ANY (ARRAY(SELECT key FROM over))
                                FOR UPDATE OF k SKIP LOCKED))
    RETURNING key
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT key FROM seen ORDER BY key DESC LIMIT 1) AS last,
       (SELECT count(*) FROM gone) AS gone
