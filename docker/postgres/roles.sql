-- Roles of the node's database: who may change its schema, who may use it, who may read results.
--
-- psql runs it as superuser in the node's database: at the first start of the compose service, or by
-- hand for a server of your own and for a database of version 0.1, whose tables it hands over. It may
-- be run again. POSTGRES_OWNER_PASSWORD_FILE and POSTGRES_NODE_PASSWORD_FILE name the password files.
--
--   epvs_owner   owns the tables; for `epvs-node migrate` alone, which also grants what follows
--   epvs_node    receiver, workers, housekeeper and command line: no DDL, audit events only added
--   epvs_reader  cannot log in; gives the logins that are its members the views of docs/sql.md
\set ON_ERROR_STOP on
\set owner_password `cat "$POSTGRES_OWNER_PASSWORD_FILE"`
\set node_password `cat "$POSTGRES_NODE_PASSWORD_FILE"`

SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['epvs_owner', 'epvs_node', 'epvs_reader']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE epvs_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE epvs_node LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'node_password';
ALTER ROLE epvs_reader NOLOGIN;

-- By default everybody may connect and create temporary tables; before PostgreSQL 15, any table.
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO epvs_node, epvs_reader;
ALTER DATABASE :"DBNAME" OWNER TO epvs_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO epvs_owner;

-- Sequences follow their tables.
SELECT format('ALTER TABLE %s OWNER TO epvs_owner', oid::regclass)
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
\gexec
SELECT format('ALTER FUNCTION %s OWNER TO epvs_owner', oid::regprocedure)
  FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace
\gexec
