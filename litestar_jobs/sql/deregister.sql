-- A process leaves. $1 worker id.
DELETE FROM litestar_jobs.worker WHERE id = $1::uuid
