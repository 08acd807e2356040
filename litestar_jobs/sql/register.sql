-- Register a live process. $1 worker id · $2 hostname · $3 pid · $4 queues · $5 lease in seconds.
INSERT INTO litestar_jobs.worker (id, hostname, pid, queues, started_at, expires_at)
VALUES ($1::uuid, $2::text, $3::int, $4::text[], statement_timestamp(),
        statement_timestamp() + make_interval(secs => $5::float8))
