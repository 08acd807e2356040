-- Why a job is held. $1 its id. Answers nothing if it is not.
SELECT reason FROM litestar_jobs.held WHERE id = $1::uuid
