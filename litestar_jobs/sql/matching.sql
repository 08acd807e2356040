-- The ids of jobs by filter. A condition that is NULL is none.
-- $1 statuses · $2 queue · $3 job type · $4 created before · $5 created so many seconds ago or earlier
-- $6 text in the last error, whatever its case · $7 trace id · $8 ids.
-- A status decides which tables are read; among those only ids, and status with a bad end, are in an index.
SELECT id FROM litestar_jobs.jobs
 WHERE status = ANY ($1::text[]) AND ($2::text IS NULL OR queue = $2) AND ($3::text IS NULL OR job_type = $3)
   AND ($4::timestamptz IS NULL OR created_at < $4)
   AND ($5::float8 IS NULL OR created_at <= statement_timestamp() - make_interval(secs => $5))
   AND ($6::text IS NULL OR strpos(lower(last_error), lower($6)) > 0)
   AND ($7::text IS NULL OR trace_id = $7) AND ($8::uuid[] IS NULL OR id = ANY ($8))
