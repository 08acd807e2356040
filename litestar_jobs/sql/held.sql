-- Why a job is held; of one that waits at a gate, with its key behind a colon. $1 its id. Answers nothing if it is not.
SELECT concat_ws(':', reason, key) AS reason FROM litestar_jobs.held WHERE id = $1::uuid
