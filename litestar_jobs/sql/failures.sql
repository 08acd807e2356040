-- The failed attempts of a job, first to last. $1 its id.
SELECT attempt, failed_at, error_type, message, traceback
  FROM litestar_jobs.failure WHERE id = $1::uuid ORDER BY failed_at, attempt
