WITH old AS (
    DELETE FROM litestar_jobs.finished
     WHERE id IN (SELECT id FROM litestar_jobs.finished
                   WHERE finished_at < now() - interval '30 days'
                   LIMIT 10000)
    RETURNING id
), failures AS (
    DELETE FROM litestar_jobs.failure WHERE id IN (SELECT id FROM old)
)
DELETE FROM litestar_jobs.job WHERE id IN (SELECT id FROM old);
