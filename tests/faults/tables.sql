-- What the suite counts afterwards.
CREATE TABLE mark (job_id uuid NOT NULL, attempt int NOT NULL, pid int NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE effect (job_id uuid NOT NULL, attempt int NOT NULL);

-- Every claim that was ever committed, in the order in which one job's claims were.
CREATE TABLE claimed (
    number bigint GENERATED ALWAYS AS IDENTITY, id uuid NOT NULL, token bigint NOT NULL, attempt int NOT NULL,
    worker_id uuid NOT NULL
);
CREATE FUNCTION keep_claims() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO claimed (id, token, attempt, worker_id) SELECT id, token, attempt, worker_id FROM rows;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_claims AFTER INSERT ON litestar_jobs.running REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION keep_claims();
