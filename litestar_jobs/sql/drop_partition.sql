-- Drop a partition. $1 its label · $2, $3, $4 for how many seconds completed, failed and cancelled jobs are kept; NULL: for ever.
-- Answers whether it is gone, how many jobs went with it, by how they ended, and how many stay. Many may run at once.
SELECT dropped, stayed, completed, failed, cancelled
  FROM litestar_jobs.drop_partition($1::text, $2::float8, $3::float8, $4::float8)
