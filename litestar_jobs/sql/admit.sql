-- Admit: jobs that wait at a gate go through, as many as it has passes for, in order: to their next gate, or to ready.
-- $1, $2 gates to visit, reasons and keys, one of each · $3 jobs that ended: the gates of their slots are visited too
-- $4, $5 and so are those behind this reason and key, where somebody waits or has passed, $6 at most so many
-- $7 what the code of the caller says, JSON object of job type to [concurrency, rate, seconds]; where it says nothing,
-- what the job brought with it counts · $8 channel to notify.
-- A pass of a limit counts while its job is ready, runs, or waits at its other gate, whatever brought it there, and not
-- once it is anywhere else: nobody has to give it back. A pass of a rate counts from the start of its job, and as of now
-- while the job is ready; if it left no trace of when it began, from when that is noticed. Whoever takes a job out of
-- ready, and does not begin it, deletes its pass (cancel.sql).
-- Passes are counted as this statement's snapshot has them, and given only if nobody has given any since: the row of
-- the gate is locked, and its turn is the one that was seen. A gate that somebody else is at is left out. Nothing of a
-- gate changes without another turn, so what the snapshot has of it is still in its place.
-- In ready, a job's time is now, as in fire.sql.
-- Answers each visited gate, whether it was one of those behind, whether somebody waited there, and in how many seconds
-- to come again, where that is known.
WITH RECURSIVE waiting AS (
    (SELECT reason, key FROM litestar_jobs.held
      WHERE key IS NOT NULL AND (reason, key) > ($4::text, $5::text) ORDER BY reason, key LIMIT 1)
    UNION ALL
    SELECT later.reason, later.key FROM waiting CROSS JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.held
         WHERE key IS NOT NULL AND (reason, key) > (waiting.reason, waiting.key) ORDER BY reason, key LIMIT 1) AS later
), asked AS (
    SELECT reason, key, false AS is_behind FROM unnest($1::text[], $2::text[]) AS told(reason, key)
    UNION ALL
    SELECT 'limit', limit_key, false FROM litestar_jobs.limited WHERE id = ANY ($3::uuid[]) AND limit_key IS NOT NULL
    UNION ALL
    (SELECT reason, key, true
       FROM ((SELECT reason, key FROM waiting LIMIT $6::int)
             UNION
             (SELECT reason, key FROM litestar_jobs.gate
               WHERE (reason, key) > ($4::text, $5::text) ORDER BY reason, key LIMIT $6::int)) AS behind
      ORDER BY reason, key
      LIMIT $6::int)
), visited AS MATERIALIZED (
    SELECT v.*, gate.gate_place, gate.turn, first.id IS NOT NULL AS waits,
           CASE v.reason WHEN 'limit' THEN COALESCE((first.says ->> 0)::int, first.concurrency, gate.most)
                                      ELSE COALESCE((first.says ->> 1)::int, first.rate, gate.most) END AS most,
           CASE v.reason WHEN 'rate' THEN COALESCE((first.says ->> 2)::float8, first.per, gate.per) END AS per
      FROM (SELECT reason, key, bool_or(is_behind) AS is_behind FROM asked GROUP BY reason, key) AS v
      LEFT JOIN LATERAL (
        SELECT g.ctid AS gate_place, turn, most, per FROM litestar_jobs.gate g WHERE g.reason = v.reason AND g.key = v.key
        OFFSET 0) AS gate ON true
      LEFT JOIN LATERAL (
        SELECT l.*, $7::jsonb -> job.job_type AS says
          FROM (SELECT id FROM litestar_jobs.held h WHERE h.reason = v.reason AND h.key = v.key
                 ORDER BY priority, run_at, id LIMIT 1) AS front
         CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.limited WHERE limited.id = front.id OFFSET 0) AS l
         CROSS JOIN LATERAL (SELECT job_type FROM litestar_jobs.job WHERE job.id = front.id OFFSET 0) AS job) AS first ON true
), passes AS MATERIALIZED (
    SELECT *, COALESCE(since <= statement_timestamp() - make_interval(secs => COALESCE(per, 0)), false) AS is_over
      FROM (SELECT v.reason, v.key, v.per, p.place, p.started_at,
                   CASE WHEN p.started_at IS NOT NULL THEN p.started_at
                        WHEN now.place = 'ready' THEN NULL
                        WHEN v.reason = 'limit' THEN CASE WHEN now.place IS NULL THEN to_timestamp(0) END
                        WHEN now.place = 'running' THEN GREATEST(now.since, p.passed_at)
                        ELSE COALESCE(
                            (SELECT GREATEST(f.started_at, p.passed_at)
                               FROM litestar_jobs.finished f WHERE f.id = p.id AND f.started_at IS NOT NULL),
                            (SELECT max(n.failed_at) FROM litestar_jobs.failure n
                              WHERE n.id = p.id AND n.failed_at >= p.passed_at),
                            statement_timestamp()) END AS since
              FROM visited v CROSS JOIN LATERAL (
                SELECT pass.ctid AS place, id, passed_at, started_at FROM litestar_jobs.pass
                 WHERE pass.reason = v.reason AND pass.key = v.key OFFSET 0) AS p
              LEFT JOIN LATERAL (
                SELECT 'ready' AS place, NULL::timestamptz AS since FROM litestar_jobs.ready WHERE ready.id = p.id
                UNION ALL
                SELECT 'running', r.started_at FROM litestar_jobs.running r WHERE r.id = p.id
                UNION ALL
                SELECT 'gate', NULL FROM litestar_jobs.held h WHERE h.id = p.id AND h.reason = 'rate' AND v.reason = 'limit'
                 LIMIT 1) AS now ON true) AS seen
), counted AS MATERIALIZED (
    SELECT visited.*, COALESCE(n.used, 0) AS used, visited.most - COALESCE(n.used, 0) AS room, n.free_in,
           COALESCE(n.news, 0) > 0 AS has_news
      FROM visited LEFT JOIN (
        SELECT reason, key, count(*) FILTER (WHERE NOT is_over) AS used,
               count(*) FILTER (WHERE is_over OR (started_at IS NULL AND since IS NOT NULL)) AS news,
               min(per - COALESCE(extract(epoch FROM statement_timestamp() - since), 0)) FILTER (WHERE NOT is_over) AS free_in
          FROM passes GROUP BY reason, key) AS n USING (reason, key)
), opened AS (
    INSERT INTO litestar_jobs.gate (reason, key, turn, most, per)
    SELECT reason, key, 0, most, per FROM counted WHERE turn IS NULL AND waits ORDER BY reason, key
    ON CONFLICT DO NOTHING
    RETURNING reason, key
), locked AS MATERIALIZED (
    SELECT own.* FROM counted CROSS JOIN LATERAL (
        SELECT reason, key FROM litestar_jobs.gate g
         WHERE g.reason = counted.reason AND g.key = counted.key AND g.turn = counted.turn
           FOR UPDATE SKIP LOCKED) AS own
     WHERE has_news OR (waits AND room > 0) OR (NOT waits AND used = 0)
), ours AS MATERIALIZED (
    SELECT counted.*, NOT waits AND used = 0 AS is_idle
      FROM counted JOIN (TABLE opened UNION ALL TABLE locked) AS own USING (reason, key)
), gone AS (
    DELETE FROM litestar_jobs.held WHERE id = ANY (ARRAY(
        SELECT front.id FROM ours CROSS JOIN LATERAL (
            SELECT id FROM litestar_jobs.held h WHERE h.reason = ours.reason AND h.key = ours.key
             ORDER BY priority, run_at, id
             LIMIT GREATEST(ours.room, 0)
               FOR UPDATE SKIP LOCKED) AS front))
    RETURNING id, queue, priority, run_at, attempts, reason, key
), through AS MATERIALIZED (
    SELECT gone.*, CASE gone.reason WHEN 'limit' THEN l.rate_key END AS next_key,
           row_number() OVER (ORDER BY gone.priority, gone.run_at, gone.id) * interval '1 microsecond' AS place
      FROM gone CROSS JOIN LATERAL (SELECT * FROM litestar_jobs.limited WHERE limited.id = gone.id OFFSET 0) AS l
), given AS (
    INSERT INTO litestar_jobs.pass (reason, key, id, passed_at)
    SELECT reason, key, id, statement_timestamp() FROM through
), over AS (
    DELETE FROM litestar_jobs.pass
     WHERE ctid = ANY (ARRAY(SELECT place FROM passes JOIN ours USING (reason, key) WHERE is_over))
), begun AS (
    UPDATE litestar_jobs.pass SET started_at = passes.since FROM passes
     WHERE pass.ctid = passes.place
       AND pass.ctid = ANY (ARRAY(SELECT place FROM passes JOIN ours USING (reason, key)
                                   WHERE NOT is_over AND started_at IS NULL AND since IS NOT NULL))
), turned AS (
    UPDATE litestar_jobs.gate g SET turn = g.turn + 1, most = ours.most, per = ours.per FROM ours
     WHERE g.ctid = ours.gate_place AND g.ctid = ANY (ARRAY(SELECT gate_place FROM ours WHERE NOT is_idle))
), closed AS (
    DELETE FROM litestar_jobs.gate WHERE ctid = ANY (ARRAY(SELECT gate_place FROM ours WHERE is_idle))
), onward AS (
    INSERT INTO litestar_jobs.held (id, queue, priority, run_at, attempts, reason, key)
    SELECT id, queue, priority, run_at, attempts, 'rate', next_key FROM through WHERE next_key IS NOT NULL
), now AS (
    INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts)
    SELECT id, queue, priority, statement_timestamp() + place, attempts FROM through WHERE next_key IS NULL
), told AS MATERIALIZED (
    SELECT pg_notify($8::text, 'ready:' || queue)
      FROM (SELECT DISTINCT queue FROM through WHERE next_key IS NULL) AS queues
)
SELECT counted.reason, counted.key, counted.is_behind, counted.waits,
       (CASE WHEN counted.waits AND counted.room > 0 AND ours.key IS NULL THEN 0
             WHEN counted.waits AND COALESCE(moved.jobs, 0) >= counted.room THEN LEAST(counted.free_in, counted.per)
        END)::float8 AS again_in, (SELECT count(*) FROM told) AS told
  FROM counted
  LEFT JOIN ours USING (reason, key)
  LEFT JOIN (SELECT reason, key, count(*) AS jobs FROM through GROUP BY reason, key) AS moved USING (reason, key)
 UNION ALL
SELECT DISTINCT 'rate', next_key, false, true, 0::float8, 0 FROM through WHERE next_key IS NOT NULL
 ORDER BY reason, key
