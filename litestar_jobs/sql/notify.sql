-- Tell workers of jobs that may run, 'ready:' and a queue, are scheduled, 'due:' and seconds, or wait at a gate, 'limit:'
-- or 'rate:' and its key.
-- $1 channel · $2 messages.
SELECT pg_notify($1::text, message) FROM unnest($2::text[]) AS message
