-- Drop a partition. $1 its label · $2, $3, $4 for how many seconds completed, failed and cancelled jobs are kept; NULL: for ever.
-- Answers whether it is gone, and how many of its jobs were kept long enough, by how they ended. Many may run at once.
SELECT dropped, completed, failed, cancelled
  FROM litestar_jobs.drop_partition($1::text, $2::float8, $3::float8, $4::float8)
