-- How many jobs have been kept long enough. $1 statuses · $2 for how many seconds each is kept.
SELECT kept.status, count(*) AS jobs
  FROM unnest($1::text[], $2::float8[]) AS kept(status, seconds)
  JOIN litestar_jobs.finished ON finished.status = kept.status
                             AND finished.finished_at <= statement_timestamp() - make_interval(secs => kept.seconds)
 GROUP BY kept.status
