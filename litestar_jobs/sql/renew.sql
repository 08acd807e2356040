-- Renew a lease. $1 worker id · $2 lease in seconds. A lease that has ended cannot be renewed: others may already
-- have taken the jobs. Then nothing is answered.
UPDATE litestar_jobs.worker SET expires_at = statement_timestamp() + make_interval(secs => $2::float8)
 WHERE id = $1::uuid AND expires_at > statement_timestamp()
RETURNING id
