-- Write how far attempts have come, where the token still is the right one. $1 ids · $2 tokens · $3 parts · $4 messages.
-- An attempt that ends meanwhile leaves a row that does not count. One that lost its lease between this statement's
-- snapshot and its write came earlier than whatever the next attempt has written. Answers the ids that were written.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::float8[], $4::text[]) AS g(id, token, part, message)
)
INSERT INTO litestar_jobs.progress AS p (id, token, at, part, message)
SELECT r.id, r.token, statement_timestamp(), given.part, given.message
  FROM given JOIN litestar_jobs.running r USING (id, token)
 WHERE r.id = ANY ($1::uuid[])
 ORDER BY r.id
ON CONFLICT (id) DO UPDATE
   SET token = EXCLUDED.token, at = EXCLUDED.at, part = EXCLUDED.part, message = EXCLUDED.message
 WHERE p.at <= EXCLUDED.at
RETURNING id
