-- What changes of jobs while somebody watches them, without what is large. $1 their ids. One by one, as in get.sql.
SELECT found.* FROM unnest($1::uuid[]) AS asked(id) CROSS JOIN LATERAL (
    SELECT id, status, attempts, run_at, started_at, progress, progress_message
      FROM litestar_jobs.jobs WHERE jobs.id = asked.id OFFSET 0) AS found
