-- Tell workers of jobs that may run, 'ready:' and a queue, or are scheduled, 'due:' and seconds.
-- $1 channel · $2 messages.
SELECT pg_notify($1::text, message) FROM unnest($2::text[]) AS message
