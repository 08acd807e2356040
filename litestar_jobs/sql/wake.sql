-- Tell workers that jobs of these queues may run. $1 channel · $2 queues.
SELECT pg_notify($1::text, 'ready:' || queue) FROM unnest($2::text[]) AS queue
