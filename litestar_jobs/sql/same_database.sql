-- Whether this connection sees the worker's row, that is, whether it leads to the jobs' database. $1 worker id.
SELECT EXISTS (SELECT FROM litestar_jobs.worker WHERE id = $1::uuid) AS same
