-- The partitions, the oldest first, and the rest last; nothing if the tables are plain.
-- $1 completed jobs are kept for so many seconds; NULL: for ever.
-- Answers of each whether all its jobs were created so long ago, and whether this role may make and drop partitions.
SELECT p.label, p.begins, p.ends, COALESCE(litestar_jobs.first_id(p.begins), '00000000-0000-0000-0000-000000000000') AS low,
       (p.ends <= statement_timestamp() - make_interval(secs => $1::float8)) IS TRUE AS is_over,
       has_function_privilege('litestar_jobs.make_partition()', 'EXECUTE')
       AND has_function_privilege('litestar_jobs.drop_partition(text, float8, float8, float8)', 'EXECUTE') AS is_allowed,
       COALESCE((SELECT greatest(reltuples, 0)::bigint FROM pg_class
                  WHERE oid = to_regclass('litestar_jobs.' || quote_ident('job_' || p.label))), 0) AS jobs,
       COALESCE((SELECT sum(pg_total_relation_size(to_regclass('litestar_jobs.' || quote_ident(each || '_' || p.label))))::bigint
                   FROM unnest(litestar_jobs.partitioned()) AS each), 0) AS bytes
  FROM (SELECT label, begins, ends FROM litestar_jobs.partitions()
        UNION ALL
        SELECT 'rest', NULL, NULL WHERE to_regclass('litestar_jobs.job_rest') IS NOT NULL) AS p
 ORDER BY p.ends
